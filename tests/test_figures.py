"""Stored tables in; the lines, labels and limits of the figures out. Centroids against sums done by hand."""

import io
import subprocess
import sys

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from snn_probe.drawing import curves as figures
from snn_probe.drawing import style as figure_style
from snn_probe.results import Result, combine
from snn_probe.tables.centroid import information_centroid


def fisher_table(traces, stderr=0.1, layer="all"):
    table = pd.DataFrame({"timestep": range(1, len(traces) + 1), "trace": np.array(traces, dtype=float)})
    return table.assign(layer=layer, stderr=stderr, n_groups=10)


def fisher_result(traces, method="trt", epoch=20, seed=0, kind="epoch", **options):
    config = {"method": method, "dataset": "digits", "model": "tiny", "seed": seed, "num_steps": len(traces)}
    card = {"run": f"{method}-seed{seed}", "epoch": epoch, "kind": kind, "config": config}
    return Result("fisher_trace", fisher_table(traces, **options), {}, card)


def grid(methods=("sdt", "tet", "trt"), epochs=(20, 120, 300), seeds=(0,)):
    """Traces 6, 5, .., 1 over 6 timesteps, scaled by something else for every checkpoint."""
    falling = np.arange(6.0, 0.0, -1.0)
    cells = [(method, epoch, seed) for method in methods for epoch in epochs for seed in seeds]
    return combine(fisher_result(falling + i, *cell) for i, cell in enumerate(cells))


def metrics(methods=("sdt", "tet", "trt"), epochs=20, seeds=(0, 1)):
    rows = []
    for i, method in enumerate(methods):
        for seed in seeds:
            for epoch in range(1, epochs + 1):
                accuracy = (epoch + i + seed) / 40
                rows.append((f"{method}-{seed}", method, seed, epoch, accuracy, accuracy - 0.02, 3 / epoch, 4 / epoch))
    columns = "run method seed epoch train_accuracy test_accuracy train_loss test_loss"
    return pd.DataFrame(rows, columns=columns.split())


def axes():
    return Figure().subplots()


def legend_labels(ax):
    return [
        label for handle, label in zip(*ax.get_legend_handles_labels(), strict=True) if not figure_style.is_note(handle)
    ]


def note(ax):
    return [
        label for handle, label in zip(*ax.get_legend_handles_labels(), strict=True) if figure_style.is_note(handle)
    ]


def looks(ax):
    return {(line.get_marker(), str(line._dash_pattern), to_hex(line.get_color())) for line in ax.lines}


# The information centroid


def test_centroid_of_one_table_is_a_float():
    table = pd.concat([fisher_table([1, 1, 2]), fisher_table([1, 0, 0], layer="conv1")])
    assert information_centroid(table) == (1 * 1 + 2 * 1 + 3 * 2) / 4
    assert information_centroid(table.drop(columns="stderr").iloc[::-1]) == 2.25
    assert information_centroid(table, layer="conv1") == 1.0
    assert information_centroid(fisher_table([0.5])) == 1.0
    assert isinstance(information_centroid(table), float)


def test_centroids_of_a_combined_table():
    traces = {20: [1.0, 1.0, 2.0], 300: [3.0, 1.0, 0.0]}
    table = combine(fisher_result(values, epoch=epoch) for epoch, values in traces.items())
    found = information_centroid(table)
    assert found["epoch"].tolist() == [20, 300]
    assert found["method"].tolist() == ["trt", "trt"]
    assert found["centroid"].tolist() == [2.25, 1.25]
    by_hand = [np.sqrt(1.25**2 + 0.25**2 + 0.75**2) / 4 * 0.1, np.sqrt(0.25**2 + 0.75**2 + 1.75**2) / 4 * 0.1]
    np.testing.assert_allclose(found["stderr"], by_hand, rtol=1e-14)


def test_standard_error_of_the_centroid_is_what_independent_noise_gives():
    trace, error = np.array([4.0, 3.0, 2.0, 1.0]), np.array([0.02, 0.04, 0.01, 0.03])
    expected = information_centroid(combine([fisher_result(trace, stderr=error)]))["stderr"][0]
    noisy = trace + error * np.random.default_rng(0).normal(size=(20_000, 4))
    centroids = (noisy * [1, 2, 3, 4]).sum(axis=1) / noisy.sum(axis=1)
    # 4 standard errors of a standard deviation from n draws, sd / sqrt(2 n), are 2 %; the next order adds 1e-4
    assert abs(centroids.std() / expected - 1) < 4 / np.sqrt(2 * 20_000)


def test_centroid_of_nothing_is_missing():
    assert np.isnan(information_centroid(fisher_table([0, 0])))
    assert np.isnan(information_centroid(fisher_table([1, np.nan])))
    found = information_centroid(combine([fisher_result([0, 0]), fisher_result([1, 1], epoch=30, stderr=np.nan)]))
    assert found["centroid"].isna().tolist() == [True, False]
    assert found["stderr"].isna().all()


def test_centroids_when_the_source_is_unknown():
    table = combine([Result("fisher_trace", fisher_table([1, 1]), {}), fisher_result([1, 3])])
    assert information_centroid(table)["centroid"].tolist() == [1.5, 1.75]


@pytest.mark.parametrize("measure", [information_centroid, lambda table: figures.fisher_trace(table, axes())])
@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (pd.DataFrame({"timestep": [1]}), "the table has no column 'layer'; give the table of a fisher_trace result"),
        (fisher_table([1, 2], layer="conv1"), "layer 'all' is not in the table; choose one of its layers: conv1"),
        (fisher_table([]), "layer 'all' is not in the table; choose one of its layers: none"),
        (pd.concat([fisher_table([1, 2])] * 2), "timestep 1 occurs twice for one checkpoint; give the table of one"),
        (combine([fisher_result([1, 2])] * 2), "timestep 1 occurs twice for one checkpoint; give .* or combine"),
    ],
)
def test_other_tables_are_refused(measure, table, sentence):
    with pytest.raises(ValueError, match=sentence):
        measure(table)


def test_a_centroid_needs_all_timesteps():
    with pytest.raises(ValueError, match=r"the timesteps of one checkpoint are \[1, 3\], but a centroid needs all of"):
        information_centroid(fisher_table([1, 2, 3]).iloc[[0, 2]])


# Fisher traces


def test_fisher_trace_draws_one_line_per_checkpoint():
    ax = axes()
    assert figures.fisher_trace(grid(), ax) is ax
    assert len(ax.lines) == 9
    for i, line in enumerate(ax.lines):
        np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3, 4, 5, 6])
        np.testing.assert_array_equal(line.get_ydata(), np.arange(6, 0, -1) + i)
    expected = [f"{name}, epoch {epoch}" for name in ("SDT", "TET", "TRT") for epoch in (20, 120, 300)]
    assert legend_labels(ax) == expected
    assert note(ax) == ["band: ±1 standard error"]
    assert ax.get_xlabel() == "Timestep"
    assert ax.get_ylabel() == "Fisher trace (empirical)"
    assert ax.get_xticks().tolist() == [1, 2, 3, 4, 5, 6]
    assert ax.get_yscale() == "linear"


def test_fisher_trace_band_is_one_standard_error():
    ax = axes()
    figures.fisher_trace(fisher_table([3, 2], stderr=0.5), ax)
    corners = {(float(x), float(y)) for x, y in ax.collections[0].get_paths()[0].vertices}
    assert corners == {(1, 2.5), (1, 3.5), (2, 1.5), (2, 2.5)}
    assert legend_labels(ax) == []  # a bare table: nothing to tell apart


@pytest.mark.parametrize("stderr", [np.nan, None])
def test_fisher_trace_without_standard_errors_has_no_band(stderr):
    table = fisher_table([3, 2], stderr=stderr)
    ax = axes()
    figures.fisher_trace(table if stderr else table.drop(columns="stderr"), ax)
    assert len(ax.collections) == 0
    assert note(ax) == []


def test_fisher_trace_goes_by_timestep_whatever_the_order_of_rows():
    ax = axes()
    figures.fisher_trace(grid().sample(frac=1, random_state=0), ax)
    assert [line.get_ydata()[0] for line in ax.lines] == [6 + i for i in range(9)]


@pytest.mark.parametrize(
    ("traces", "scale"),
    [
        ([101, 10, 1], "log"),
        ([99, 10, 1], "linear"),
        ([101, 1, 0], "linear"),
        ([0, 0], "linear"),
        ([np.inf, 5, 1], "linear"),
    ],
)
def test_fisher_trace_is_logarithmic_beyond_two_decades(traces, scale):
    ax = axes()
    figures.fisher_trace(fisher_table(traces, stderr=5), ax)
    assert ax.get_yscale() == scale
    if scale == "log":  # although the band reaches below zero
        assert ax.get_ylim() == (1 / 1.5, 106 * 1.2)


def test_fisher_trace_of_another_layer_and_estimator():
    ax = axes()
    table = pd.concat([fisher_table([9, 9]), fisher_table([2, 1], layer="conv1")])
    figures.fisher_trace(table, ax, layer="conv1", estimator="labels drawn")
    assert ax.lines[0].get_ydata().tolist() == [2, 1]
    assert ax.get_ylabel() == "Fisher trace (labels drawn)\nlayer conv1"


def test_ticks_of_many_timesteps_are_few_and_whole():
    ax = axes()
    figures.fisher_trace(fisher_table(np.ones(100)), ax)
    ticks = ax.get_xticks()
    assert ticks[0] == 1 and len(ticks) <= 12 and (ticks == ticks.astype(int)).all()


@pytest.mark.parametrize(
    ("cards", "expected"),
    [
        ([{}], ["TRT, digits, tiny, epoch 20"]),
        ([{"method": None}], ["None-seed0, digits, tiny, epoch 20"]),  # of a file of weights: its name
        ([{"epoch": 20}, {"epoch": 120}], ["epoch 20", "epoch 120"]),
        ([{"seed": 0}, {"seed": 1}], ["seed 0", "seed 1"]),
        ([{"method": "sdt"}, {"method": "mine"}], ["SDT", "mine"]),
        ([{"kind": "best"}, {"kind": "last"}], ["best", "last"]),
        ([{"epoch": None, "kind": "best"}, {"epoch": None, "kind": "last"}], ["best", "last"]),
        ([{"epoch": 20}, {"epoch": None}], ["epoch 20", "trt-seed0"]),
        ([{"method": "trt"}, {"method": None}], ["TRT", "None-seed0"]),
    ],
)
def test_labels_say_what_differs(cards, expected):
    ax = axes()
    figures.fisher_trace(combine(fisher_result([2, 1], **card) for card in cards), ax)
    assert sorted(legend_labels(ax)) == sorted(expected)


def weights_result(name, model):
    card = {"run": name, "kind": "weights", "config": {"dataset": "digits", "model": model, "num_steps": 2}}
    return Result("fisher_trace", fisher_table([2, 1]), {}, card)


def test_what_is_not_known_is_left_out_and_the_file_named_instead():
    files = [weights_result("rec", "mynet:recurrent"), weights_result("snn", "mynet:snn")]
    ax = axes()
    figures.fisher_trace(combine([fisher_result([2, 1], epoch=3), *files]), ax)
    assert sorted(legend_labels(ax)) == ["TRT, tiny, epoch 3, seed 0", "rec, recurrent", "snn"]
    ax = axes()
    figures.fisher_trace(combine(files[:1]), ax)
    assert legend_labels(ax) == ["rec, digits, recurrent"]
    alike = [weights_result("x", "one:net"), weights_result("x", "two:net")]  # in full, or they would be called alike
    ax = axes()
    figures.fisher_trace(combine(alike), ax)
    assert legend_labels(ax) == ["one:net", "two:net"]


def test_lines_of_text_are_about_as_long():
    text = "bar: mean over timesteps, whisker: lowest to highest timestep"
    most = figure_style.letters(3.2)
    assert len(text) > most > len(text.rpartition(" ")[0])  # a greedy break leaves the last word alone
    assert min(map(len, figure_style.filled(text, 3.2).splitlines())) > 20
    assert figure_style.filled(text, 3.2).replace("\n", " ") == text
    assert figure_style.filled("averyveryverylongword b", 0.5).splitlines()[-1].endswith("b")
    assert figure_style.filled("", 1.0) == ""


def test_lines_on_each_other_show_around_those_above():
    for count in (1, 2, 8):
        sizes = figure_style.stacked(count)
        assert len(sizes) == count
        for name in ("lw", "ms"):
            widths = [size[name] for size in sizes]
            assert widths == sorted(widths, reverse=True) and len(set(widths)) == count
    assert figure_style.stacked(1) == [{"lw": 0.8, "ms": 4}]


def test_runs_that_differ_in_nothing_else_are_called_by_their_name():
    first, second = fisher_result([2, 1]), fisher_result([3, 2])
    second.source["run"] = "again"
    ax = axes()
    figures.fisher_trace(combine([first, second]), ax)
    assert legend_labels(ax) == ["again", "trt-seed0"]


# What tells lines apart


def test_methods_have_their_own_colours_in_every_table():
    for methods in (("sdt", "tet", "trt"), ("trt",), ("mine", "trt")):
        ax = axes()
        figures.fisher_trace(grid(methods, epochs=(20, 300)), ax)
        trt = [line for line in ax.lines if line.get_marker() == "^"]
        assert to_hex(trt[-1].get_color()) == "#009e73"


@pytest.mark.parametrize(
    "table",
    [grid(), grid(seeds=(0, 1, 2)), grid(("trt",), range(8)), grid(("sdt", "a", "b", "c")), grid(("a",), (1,))],
)
def test_every_line_can_be_told_apart_without_colour(table):
    ax = axes()
    figures.fisher_trace(table, ax)
    assert len({(marker, dash) for marker, dash, _ in looks(ax)}) == len(ax.lines)


def test_the_last_checkpoint_is_solid_and_darkest():
    ax = axes()
    figures.fisher_trace(grid(("trt",)), ax)
    assert ax.lines[-1].get_linestyle() == "-"
    brightness = [sum(matplotlib.colors.to_rgb(line.get_color())) for line in ax.lines]
    assert brightness == sorted(brightness, reverse=True)


# Learning curves

BOTH = "solid: test; dashed, hollow: train"


def test_learning_curves_draw_train_and_test_in_percent():
    ax = axes()
    table = metrics(seeds=(0,))
    assert figures.learning_curves(table, ax) is ax
    assert legend_labels(ax) == ["SDT", "TET", "TRT"]
    assert [line.get_markerfacecolor() == "none" for line in ax.lines] == [True, False] * 3
    assert [line.get_linestyle() for line in ax.lines] == ["--", "-"] * 3
    for i, method in enumerate(("sdt", "tet", "trt")):
        rows = table[table["method"] == method]
        for line, split in zip(ax.lines[2 * i : 2 * i + 2], ("train", "test"), strict=True):
            np.testing.assert_array_equal(line.get_xdata(), range(1, 21))
            np.testing.assert_allclose(line.get_ydata(), 100 * rows[f"{split}_accuracy"])
            assert to_hex(line.get_color()) == figure_style.METHODS[method][1].lower()
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Epoch", "Accuracy (%)")
    assert note(ax) == [BOTH] and len(ax.collections) == 1  # the note's entry, without a band
    assert len(looks(ax)) == 6


def test_one_epoch_is_a_filled_and_a_larger_hollow_point():
    ax = axes()
    figures.learning_curves(metrics(("sdt",), epochs=1, seeds=(0,)).assign(test_accuracy=0.025), ax)
    train, test = ax.lines
    assert train.get_xydata().tolist() == test.get_xydata().tolist()  # on each other, and yet both are seen
    assert (train.get_markerfacecolor(), train.get_markeredgecolor()) == ("none", test.get_color())
    assert train.get_markersize() > test.get_markersize() and test.get_markerfacecolor() == test.get_color()
    assert ax.get_xticks().tolist() == [1]


def test_train_alone_is_named_too():
    ax = axes()
    figures.learning_curves(metrics(("sdt",), seeds=(0,)).drop(columns="test_accuracy"), ax)
    assert legend_labels(ax) == ["SDT"] and note(ax) == ["dashed, hollow: train"]


def test_several_seeds_become_a_mean_with_a_band():
    ax = axes()
    figures.learning_curves(metrics(("sdt",), seeds=(0, 1, 3)), ax)
    assert legend_labels(ax) == ["SDT"]
    assert note(ax) == [BOTH, "line: mean of 3 seeds, band: lowest to highest"]
    train = ax.lines[0]
    np.testing.assert_allclose(train.get_ydata(), 100 * (np.arange(1, 21) + 4 / 3) / 40)
    band = ax.collections[0].get_paths()[0].vertices
    at_first = band[band[:, 0] == 1][:, 1]
    np.testing.assert_allclose([at_first.min(), at_first.max()], [2.5, 10])


def test_a_mean_stops_where_a_seed_stops_and_says_how_many_there_were():
    table = metrics(("sdt", "tet"))
    table = table[~((table["run"] == "sdt-1") & (table["epoch"] > 5)) & (table["run"] != "tet-1")]
    table.loc[(table["run"] == "sdt-0") & (table["epoch"] == 3), "train_loss"] = np.inf
    ax = axes()
    figures.learning_curves(table, ax, quantity="loss")
    assert ax.lines[0].get_xdata().tolist() == [1, 2, 4, 5]
    assert ax.lines[1].get_xdata().tolist() == [1, 2, 3, 4, 5]
    assert ax.lines[2].get_xdata().tolist() == list(range(1, 21))
    assert note(ax) == [BOTH, "line: mean of 1 to 2 seeds, band: lowest to highest"]
    assert ax.get_ylabel() == "Loss"


def test_runs_that_differ_in_more_than_the_seed_are_not_averaged():
    table = pd.concat([metrics(("trt",), seeds=(0,)), metrics(("trt",), seeds=(0,)).assign(run="other decay")])
    ax = axes()
    figures.learning_curves(table, ax)
    assert legend_labels(ax) == ["other decay", "trt-0"]
    assert note(ax) == [BOTH]
    assert len({(marker, dash) for marker, dash, _ in looks(ax)}) == 4


def test_validation_stands_in_for_an_absent_test():
    table = metrics(("sdt",), seeds=(0,)).rename(columns={"test_loss": "validation_loss"}).assign(test_loss=np.nan)
    ax = axes()
    figures.learning_curves(table, ax, quantity="loss")
    assert legend_labels(ax) == ["SDT"] and note(ax) == ["solid: validation; dashed, hollow: train"]


def test_learning_curves_of_a_bare_table_and_a_combined_one():
    bare = metrics(("sdt",), seeds=(0,)).drop(columns=["run", "method", "seed"])
    ax = axes()
    figures.learning_curves(bare, ax)
    assert legend_labels(ax) == [] and note(ax) == [BOTH]
    ax = axes()
    figures.learning_curves(combine([Result("metrics", bare, {})]), ax)
    assert [len(line.get_xdata()) for line in ax.lines] == [20, 20]


@pytest.mark.parametrize(
    ("table", "options", "sentence"),
    [
        (metrics(), {"quantity": "f1"}, "quantity is 'f1'; choose 'accuracy' or 'loss'"),
        (
            metrics()[["epoch"]],
            {},
            "the table has no accuracy by epoch; give columns epoch, train_accuracy and test_acc",
        ),
        (metrics().drop(columns="epoch"), {"quantity": "loss"}, "the table has no loss by epoch; give columns epoch"),
        (
            metrics().drop(columns=["run", "seed"]),
            {},
            "a run has epoch 1 twice; name the runs apart in the column 'run'",
        ),
        (metrics().replace({0.5: 93.0}), {}, "an accuracy is 93; give fractions from 0 to 1, not percent"),
    ],
)
def test_learning_curves_refuse(table, options, sentence):
    with pytest.raises(ValueError, match=f"learning_curves: {sentence}"):
        figures.learning_curves(table, axes(), **options)


# Centroids over epochs


def test_centroid_curves():
    table = combine(
        fisher_result(traces, method, epoch)
        for method, by_epoch in {"sdt": {300: [3, 1, 0], 20: [1, 1, 2]}, "trt": {20: [1, 1, 1], 300: [2, 2, 1]}}.items()
        for epoch, traces in by_epoch.items()
    )
    ax = axes()
    assert figures.information_centroid(table, ax) is ax
    sdt, trt = ax.lines
    assert (sdt.get_xdata().tolist(), sdt.get_ydata().tolist()) == ([20, 300], [2.25, 1.25])
    assert (trt.get_xdata().tolist(), trt.get_ydata().tolist()) == ([20, 300], [2.0, 1.8])
    assert legend_labels(ax) == ["SDT", "TRT"]
    assert note(ax) == ["bars: ±1 standard error (independent timesteps)"]
    errors = information_centroid(table)["stderr"].to_numpy()
    bars = sorted(
        half for bars in ax.collections[:2] for half in np.ptp([s[:, 1] for s in bars.get_segments()], axis=1)
    )
    np.testing.assert_allclose(bars, sorted(2 * errors))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Epoch", "Information centroid (timestep)")
    low, high = ax.get_ylim()
    assert 0.95 <= low < 1.25 and 2.25 < high <= 3.05


@pytest.mark.parametrize("traces", [[1, 0, 0], [0, 0, 1], [0, 0, 0], [1, np.nan, 1], [1]])
def test_centroid_axis_stays_within_the_timesteps(traces):
    ax = axes()
    figures.information_centroid(combine([fisher_result(traces), fisher_result(traces, epoch=30)]), ax)
    low, high = ax.get_ylim()
    if np.nansum(traces) == 1:
        assert 0.95 <= low < high <= len(traces) + 0.05


def test_centroid_curves_need_epochs():
    for table in (fisher_table([1, 2]), combine([fisher_result([1, 2], epoch=None)])):
        with pytest.raises(ValueError, match="the epoch of a checkpoint is missing; give combine"):
            figures.information_centroid(table, axes())


# Whole figures


FIGURES = [
    (name, grid() if probe == "fisher_trace" else metrics())
    for probe, pairs in figures.FIGURES.items()
    for name, _ in pairs
]


@pytest.mark.parametrize("width", [3.25, 6.75])
@pytest.mark.parametrize(("name", "table"), FIGURES, ids=[name for name, _ in FIGURES])
def test_nothing_is_clipped_and_the_legend_covers_no_axes(name, table, width):
    figure = figures.draw(name, table, width=width, title="A title of a length that needs a second line in one column")
    figure.draw_without_rendering()
    (ax,), (legend,) = figure.axes, figure.legends
    assert figure.get_figwidth() == width
    whole, around = figure.bbox, ax.get_tightbbox()
    for box in (around, legend.get_window_extent()):
        assert box.x0 >= whole.x0 and box.x1 <= whole.x1 and box.y0 >= whole.y0 and box.y1 <= whole.y1
    assert legend.get_window_extent().y1 <= around.y0
    assert ax.get_window_extent().height > 1.2 * figure.dpi  # room for the data is left
    assert [text.get_text() for text in legend.get_texts()] == legend_labels(ax)
    assert legend.get_title().get_text().replace("\n", " ") == "; ".join(note(ax))
    assert {text.get_fontsize() for text in legend.get_texts()} == {7}


def test_long_names_are_wrapped():
    results = [fisher_result([2, 1], method=f"a-method-with-a-very-long-name-and-settings-{i}" * 2) for i in range(2)]
    figure = figures.draw("fisher_trace", combine(results), estimator="labels drawn from the model, groups of 16")
    figure.draw_without_rendering()
    for box in (figure.axes[0].get_tightbbox(), figure.legends[0].get_window_extent()):
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0 and box.y1 <= figure.bbox.y1


def test_draw_passes_options_on_and_needs_no_legend():
    table = fisher_table([2, 1], stderr=np.nan, layer="conv1")
    figure = figures.draw("fisher_trace", table, layer="conv1")
    assert figure.axes[0].get_ylabel() == "Fisher trace (empirical)\nlayer conv1"
    assert figure.legends == [] and figure.axes[0].get_title() == ""
    loss = figures.draw("loss_curves", metrics())
    assert loss.axes[0].get_ylabel() == "Loss"


def test_an_unknown_figure_and_an_unknown_format():
    with pytest.raises(ValueError, match="draw: there is no figure 'x'; choose one of fisher_trace, information_cent"):
        figures.draw("x", grid())
    with pytest.raises(ValueError, match="figure_bytes: there is no format 'gif'; choose one of png, pdf, svg"):
        figure_style.figure_bytes(Figure(), "gif")


def test_figures_of_a_probe():
    assert figures.figure_names("fisher_trace", grid()) == ["fisher_trace", "information_centroid"]
    assert figures.figure_names("fisher_trace", grid(epochs=(20,))) == ["fisher_trace"]
    assert figures.figure_names("fisher_trace", fisher_table([1, 2])) == ["fisher_trace"]
    assert figures.figure_names("metrics", metrics()) == ["accuracy_curves", "loss_curves"]
    assert figures.figure_names("other", metrics()) == []
    names = [name for pairs in figures.FIGURES.values() for name, _ in pairs]
    assert len(set(names)) == len(names)


def test_pdf_has_type_42_fonts_and_no_others():
    figure = figures.draw("fisher_trace", grid(epochs=(20,)))
    with matplotlib.rc_context({"pdf.compression": 0}):
        pdf = figure_style.figure_bytes(figure, "pdf")
    assert pdf.startswith(b"%PDF")
    assert b"/FontFile2" in pdf  # an embedded TrueType font, which is what Type 42 is in a PDF
    assert b"/Type3" not in pdf
    assert b"CreationDate" not in pdf


@pytest.mark.parametrize(("format", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_the_same_table_gives_the_same_bytes(format, start):
    first, second = (figure_style.figure_bytes(figures.draw("accuracy_curves", metrics()), format) for _ in range(2))
    assert first == second
    assert first.startswith(start)


def test_png_has_300_dots_per_inch():
    png = figure_style.figure_bytes(figures.draw("fisher_trace", grid(epochs=(20,)), width=3.25), "png")
    assert matplotlib.image.imread(io.BytesIO(png)).shape[1] == 975
    half = figure_style.figure_bytes(figures.draw("fisher_trace", grid(epochs=(20,)), width=3.0), "png", dpi=150)
    picture = matplotlib.image.imread(io.BytesIO(half))[:, :, :3]
    small = figure_style.fewer_colors(half)
    assert picture.shape[1] == 450 and len(small) < len(half) / 2
    again = matplotlib.image.imread(io.BytesIO(small))[:, :, :3]
    assert again.shape == picture.shape and np.abs(again - picture).mean() < 0.01


def test_style_is_undone_and_nothing_global_is_touched():
    before = dict(matplotlib.rcParams)
    with figure_style.style():
        assert matplotlib.rcParams["pdf.fonttype"] == matplotlib.rcParams["ps.fonttype"] == 42
        assert 7 <= matplotlib.rcParams["legend.fontsize"] <= 9
    figure_style.figure_bytes(figures.draw("fisher_trace", grid(epochs=(20,))), "png")
    assert dict(matplotlib.rcParams) == before


def test_the_table_is_left_as_it_was():
    for name, table in (("information_centroid", grid()), ("fisher_trace", grid()), ("loss_curves", metrics())):
        before = table.copy()
        figures.draw(name, table)
        pd.testing.assert_frame_equal(table, before)


def test_figures_need_neither_torch_nor_pyplot():
    code = (
        "import sys, snn_probe.drawing.curves\n"
        "assert not {'torch', 'spikingjelly', 'matplotlib.pyplot'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
