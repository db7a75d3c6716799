"""Tables of an invented study in; files, plotted numbers, lines, colours and labels of its figures out."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from commands import whole_file
from matplotlib import image
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from study_tables import ARMS, GROUPS, SEEDS, ledger, study_tables

from snn_probe.drawing import study_figures, study_maps, study_numbers
from snn_probe.drawing.effects import draw_effects, effects
from snn_probe.drawing.study_figures import FIGURES, draw_study
from snn_probe.drawing.style import METHODS, figure_bytes, looks

BY_NAME = {figure.name: figure for figure in FIGURES}


def tables(**chosen):
    return {**study_tables(**chosen), "claims": ledger()}


def numbers(name, given=None):
    return BY_NAME[name].numbers(given or tables())


def drawn(name, width=6.75, given=None):
    return BY_NAME[name].draw(numbers(name, given), width)


def shown(figure):
    """The panels with lines, without colour bars."""
    return [ax for ax in figure.axes if ax.lines]


def labels(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


# Files


@pytest.mark.parametrize(("width", "formats"), [(6.75, ("pdf",)), (3.25, ("svg",))])
def test_every_figure_lies_beside_its_numbers(tmp_path, width, formats):
    written = draw_study(tables(), tmp_path, width=width, formats=formats)
    assert [path.name for path in written] == [f"{f.name}.{s}" for f in FIGURES for s in (*formats, "csv")]
    assert all(whole_file(path) for path in written if path.suffix != ".csv")
    for figure in FIGURES:
        stored, plotted = pd.read_csv(tmp_path / f"{figure.name}.csv"), numbers(figure.name)
        assert list(stored) == list(plotted)
        for column in plotted.select_dtypes("number"):
            np.testing.assert_allclose(stored[column], plotted[column], rtol=1e-12)
    assert BY_NAME["effects"].draw(numbers("effects"), width).get_figwidth() == width


def test_figures_of_tables_that_are_absent_or_empty_are_left_out(tmp_path):
    given = tables()
    written = draw_study({"metrics": given["metrics"], "fisher": given["fisher"].head(0)}, tmp_path)
    assert [path.name for path in written] == [f"learning_curves.{suffix}" for suffix in ("pdf", "png", "csv")]


def test_a_second_probe_of_a_kind_has_figures_of_its_own(tmp_path):
    given = {"eigenvalues-relaxed": tables()["eigenvalues"]}
    written = draw_study(given, tmp_path, formats=("png",))
    assert [path.name for path in written] == ["eigenvalues-relaxed.png", "eigenvalues-relaxed.csv"]


def test_the_same_tables_give_the_same_bytes():
    assert figure_bytes(drawn("fisher_trace"), "pdf") == figure_bytes(drawn("fisher_trace"), "pdf")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.drop(columns="trace"), "the figure fisher_trace needs the column 'trace' in the table 'fisher'"),
        (
            lambda t: pd.concat([t, t]),
            "fisher_trace cannot be drawn: trace at group 150 examples, .* occurs twice; keep",
        ),
    ],
)
def test_a_table_that_cannot_be_drawn_is_named(tmp_path, change, sentence):
    with pytest.raises(ValueError, match=sentence):
        draw_study({"fisher": change(tables()["fisher"])}, tmp_path)


def test_figures_of_a_study_do_not_load_torch():
    code = "import sys, snn_probe.drawing.study_figures; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


# Numbers


def test_means_over_seeds_by_hand():
    table = pd.DataFrame({"arm": "a", "seed": [0, 0, 1, 1], "part": [1, 2, 1, 2], "value": [1.0, 3.0, 5.0, 9.0]})
    (row,) = study_numbers.over_seeds(table, ["arm"], "value", within=["part"]).itertuples()
    assert (row.mean, row.low, row.high, row.n_seeds) == (4.5, 2.0, 7.0, 2)
    lost = table.assign(value=[1.0, np.inf, 5.0, 9.0])
    (row,) = study_numbers.over_seeds(lost, ["arm"], "value", within=["part"]).itertuples()
    assert np.isnan([row.mean, row.low, row.high]).all() and row.n_seeds == 2  # no mean over the seeds that survived
    with pytest.raises(
        ValueError, match="value at arm a, seed 0 occurs twice; keep one row of each seed, or tell them"
    ):
        study_numbers.over_seeds(table, ["arm"], "value")


def test_learning_curves_and_the_gap_by_hand():
    found = numbers("learning_curves").set_index(["quantity", "split", "group", "arm", "epoch"])
    mean_seed = np.mean(SEEDS)
    at = (GROUPS[1], "tet", 2)
    train, test = 50 + 4 + mean_seed, 40 + 4 + 1
    assert found.loc[("accuracy", "train", *at), "mean"] == pytest.approx(train)
    assert found.loc[("accuracy", "test", *at), "mean"] == pytest.approx(test)
    gap = found.loc[("gap", "test", *at)]
    assert gap[["mean", "low", "high"]].tolist() == pytest.approx([train - test, 54 - test, 58 - test])
    assert gap["n_seeds"] == 3
    assert found.loc[("loss", "test", *at), "mean"] == pytest.approx(1.6)


def test_centroids_by_hand():
    found = numbers("information_centroid").set_index(["group", "arm", "epoch"])
    traces = {seed: np.array([2 * t * 20 + seed for t in (1, 2, 3)]) for seed in SEEDS}
    by_hand = [trace @ [1, 2, 3] / trace.sum() for trace in traces.values()]
    row = found.loc[(GROUPS[0], "tet", 20)]
    assert row[["mean", "low", "high"]].tolist() == pytest.approx([np.mean(by_hand), min(by_hand), max(by_hand)])


def test_numbers_are_those_of_the_last_epoch_of_each_run():
    table = pd.concat([tables()["hessian_trace"].assign(epoch=e) for e in (1, 20)])
    early = table.assign(epoch=table["epoch"].where(table["arm"] != "tit", 5))
    assert set(study_numbers.at_the_end(early)["epoch"]) == {20}


def test_energy_is_summed_over_timesteps_and_has_a_unit():
    found = numbers("energy").set_index(["group", "arm", "layer"]).loc[(GROUPS[0], "sdt", "all")]
    assert (found["mean"], found["unit"]) == (pytest.approx(3 * 460 / 1e3), "nJ")


def test_loss_that_is_not_finite_is_a_gap():
    given = tables()
    table = given["landscape"]
    table.loc[(table["alpha"] == 1) & (table["seed"] == 4), "finite"] = False
    found = numbers("landscape_line", given)
    assert found.loc[found["alpha"] == 1, "mean"].isna().all() and found.loc[found["alpha"] < 1, "mean"].notna().all()


def test_of_a_density_only_what_is_drawn_is_kept():
    line = pd.DataFrame({"eigenvalue": np.arange(8.0), "density": [0.0, 0.0, 1.0, 0.0, 0.0, 2.0, 0.0, 0.0]})
    whole = {"group": "", "arm": "sdt", "seed": 0, "epoch": 1}
    found = study_numbers.densities({"density": line.assign(**whole)})
    assert found["eigenvalue"].tolist() == [2.0, 3.0, 5.0, 6.0]  # a single row for each gap
    assert found["density"].fillna(-1).tolist() == [1.0, -1.0, 2.0, -1.0]


# Pictures


def test_lines_are_the_numbers_in_the_colours_of_their_arms():
    figure, plotted = drawn("landscape_line"), numbers("landscape_line")
    assert [ax.get_title() for ax in shown(figure)] == [f"loss: {o}, {g}" for g in GROUPS for o in ("SDT", "TET")]
    assert labels(figure) == ["SDT", "TET", "TRT", "TRT-L2"]
    for ax, cell in zip(shown(figure), [(g, o) for g in GROUPS for o in ("sdt", "tet")], strict=True):
        for line, band, arm in zip(ax.lines, ax.collections, ARMS, strict=False):
            rows = plotted[(plotted["group"] == cell[0]) & (plotted["objective"] == cell[1]) & (plotted["arm"] == arm)]
            np.testing.assert_allclose(line.get_ydata(), rows["mean"])
            assert to_hex(line.get_color()) == METHODS[arm][1].lower()
            corners = band.get_paths()[0].vertices[:, 1]
            assert (corners.min(), corners.max()) == pytest.approx((rows["low"].min(), rows["high"].max()))
    assert len({ax.get_ylim() for ax in shown(figure)}) == 1  # one scale
    assert shown(figure)[0].get_yscale() == "log"


def test_the_control_arm_and_new_arms_have_looks_of_their_own():
    found = looks([*ARMS, "mine", "other"])
    assert len({(look.color, look.marker) for look in found.values()}) == len(METHODS) + 2
    assert found["trt-l2"].label == "TRT-L2" and found["trt-l2"].color != found["trt"].color
    assert looks(["other"])["sdt"] == found["sdt"]


def test_held_out_examples_are_solid_training_is_dashed_and_the_gap_has_a_scale_of_its_own():
    figure, plotted = drawn("learning_curves"), numbers("learning_curves")
    of_arm = plotted.query("quantity == 'accuracy' and group == @GROUPS[0] and arm == 'sdt'")
    for line, split in zip(shown(figure)[0].lines, ("test", "train"), strict=False):
        np.testing.assert_allclose(line.get_ydata(), of_arm[of_arm["split"] == split]["mean"])
        assert (line.get_markerfacecolor() == "none") == (split == "train")
    assert [ax.get_ylabel() for ax in shown(figure)[:3]] == ["Accuracy (%)", "Loss", "Accuracy gap\n(points)"]
    assert [line.get_linestyle() for line in shown(figure)[0].lines] == ["-", "--"] * len(ARMS)
    assert [line.get_linestyle() for line in shown(figure)[2].lines] == ["-"] * len(ARMS)
    assert len({ax.get_ylim() for ax in shown(figure)}) == 3
    said = "line: mean of 3 seeds, band: lowest to highest; solid: held-out examples; dashed, hollow: training"
    assert figure.legends[0].get_title().get_text().replace("\n", " ") == said


def test_epochs_are_lines_and_arms_are_panels_of_fisher_traces():
    figure = drawn("fisher_trace")
    assert labels(figure) == ["epoch 1", "epoch 20"]
    assert shown(figure)[0].get_ylabel() == "Empirical Fisher trace"
    sampled = drawn("fisher_trace", given={"fisher": tables()["fisher"].assign(labels="sampled")})
    assert shown(sampled)[0].get_ylabel() == "Fisher trace\n(sampled labels)"
    assert [ax.get_title() for ax in shown(figure)][:2] == ["SDT\n150 examples", "TET\n150 examples"]
    np.testing.assert_allclose(shown(figure)[1].lines[1].get_ydata(), 2 * 20 * np.arange(1, 4) + np.mean(SEEDS))


@pytest.mark.parametrize("width", [3.25, 6.75])
def test_a_group_without_an_arm_leaves_its_place_free(width):
    given = tables()
    table = given["fisher"]
    given["fisher"] = table[(table["arm"] != "tet") | (table["group"] == GROUPS[0])]
    figure = drawn("fisher_trace", width, given)
    assert len(shown(figure)) == 7
    by_title = {ax.get_title().replace("\n", ", "): ax for ax in shown(figure)}
    assert f"TET, {GROUPS[1]}" not in by_title
    lowest = f"TET, {GROUPS[0]}" if width == 6.75 else f"TRT, {GROUPS[1]}"  # of its column
    assert by_title[lowest].get_xlabel() == "Timestep" and by_title[f"SDT, {GROUPS[0]}"].get_xlabel() == ""


def test_settings_in_which_rows_differ_are_panels():
    given = tables()
    both = [given["eigenvalues"].assign(forward=forward) for forward in ("spiking", "relaxed")]
    figure = drawn("eigenvalues", given={"eigenvalues": pd.concat(both)})
    assert [ax.get_title() for ax in shown(figure)][:2] == [f"spiking, {GROUPS[0]}", f"relaxed, {GROUPS[0]}"]


def test_eigenvalues_not_converged_in_a_seed_are_hollow():
    ax = shown(drawn("eigenvalues"))[0]
    hollow = [line for line in ax.lines if line.get_markerfacecolor() == "white"]
    assert [line.get_xdata().tolist() for line in hollow] == [[2]] * len(ARMS)
    assert "hollow: not converged in a seed, a lower bound" in ax.get_legend_handles_labels()[1]


def test_one_epoch_is_a_point_with_a_bar_and_arms_stand_side_by_side():
    ax = shown(drawn("hessian_trace"))[0]
    bars, points = ax.lines[::2], ax.lines[1::2]
    assert bars[0].get_ydata().tolist() == [100, 104] and points[0].get_ydata().tolist() == [100 + np.mean(SEEDS)]
    assert len({float(point.get_xdata()[0]) for point in points}) == len(ARMS)
    assert ax.get_xticks().tolist() == [20]


def test_the_training_t_is_marked_and_densities_are_lines_of_seeds():
    ax = shown(drawn("timestep_accuracy"))[0]
    assert ax.lines[-1].get_xdata() == [3, 3]
    density = shown(drawn("spectral_density"))[0]
    assert len(density.lines) == len(SEEDS) and density.get_yscale() == "log"


def test_maps_share_a_scale_and_hold_the_means():
    figure, plotted = drawn("gradient_map"), numbers("gradient_map")
    maps = [ax for ax in figure.axes if ax.images]
    assert len(maps) == 8 and len({(ax.images[0].norm.vmin, ax.images[0].norm.vmax) for ax in maps}) == 1
    rows = plotted.query("path == 'all' and group == @GROUPS[0] and arm == 'sdt'")
    np.testing.assert_allclose(maps[0].images[0].get_array(), rows["mean"].to_numpy().reshape(2, 3))


@pytest.mark.parametrize("name", ["landscape_plane", "landscape_surface"])
def test_planes_are_of_the_lowest_seed_on_one_scale(name):
    plotted = numbers(name)
    assert set(plotted["seed"]) == {0} and len(plotted) == 2 * 4 * 25
    figure = drawn(name)
    panels = [ax for ax in figure.axes if ax.get_title()]
    assert len(panels) == 8
    (bar,) = [ax for ax in figure.axes if ax.get_ylabel() == "Loss (SDT)"]
    assert bar.get_ylim() == pytest.approx((plotted["loss"].min(), plotted["loss"].max()))
    assert not any(isinstance(c, QuadMesh) for ax in panels for c in ax.collections)


def test_bars_are_the_means():
    (first, second) = [ax for ax in drawn("firing_rate").axes if ax.patches]
    heights = [patch.get_height() for patch in first.patches]
    assert heights == pytest.approx([0.2 + 0.01 * np.mean(SEEDS)] * len(ARMS))
    assert [t.get_text() for t in first.get_xticklabels()] == ["lif"] and second.get_title() == GROUPS[1]


def test_whiskers_of_equal_seeds_survive_the_rounding_of_their_mean():
    rows = pd.DataFrame({"layer": ["a"], "arm": ["sdt"], "mean": [np.mean([0.1] * 3)], "low": [0.1], "high": [0.1]})
    assert rows["mean"][0] > rows["high"][0]
    ax = Figure().add_subplot()
    study_maps._bars(ax, rows, {"sdt": study_maps.Look("SDT", "#000000", "o")}, ["a"])
    assert ax.patches[0].get_height() == pytest.approx(0.1)


# Claims


def test_claims_stand_by_unit_with_interval_verdict_and_what_does_not_matter():
    figure = draw_effects(effects(ledger()), 6.75)
    points, relative = shown(figure)
    assert [ax.get_xlabel() for ax in (points, relative)] == ["Effect (points)", "Effect (relative)"]
    assert [t.get_text() for t in points.get_yticklabels()] == ["TET beats SDT", "TRT beats L2 | its control"]
    intervals = [list(line.get_xdata()) for line in points.lines if len(line.get_xdata()) == 2][:3]
    assert intervals == [[0.5, 2.5], [-1.0, 1.2], [-3.0, -1.0]]
    grey = points.collections[0].get_paths()[0].get_extents()
    assert (grey.x0, grey.x1) == (-0.5, 0.5)
    assert labels(figure) == ["supported", "contradicted", "undecided"]
    assert [text.get_text() for text in points.texts] == [GROUPS[0], GROUPS[1], GROUPS[0]]
    narrow = draw_effects(effects(ledger()), 3.25)
    assert [t.get_text() for t in shown(narrow)[0].get_yticklabels()] == ["a", "b"]


@pytest.mark.parametrize("width", [3.25, 6.75])
def test_claims_keep_off_the_edges(width):
    figure = draw_effects(effects(ledger()), width)
    figure.draw_without_rendering()
    for ax in shown(figure):
        box = ax.get_tightbbox()
        assert box.x0 > 0.08 * figure.dpi and box.x1 < figure.bbox.x1 - 0.08 * figure.dpi


def test_png_of_a_study_has_150_dots_per_inch(tmp_path):
    (png, _) = draw_study({"hessian_trace": tables()["hessian_trace"]}, tmp_path, width=4.0, formats=("png",))
    assert image.imread(png).shape[1] == 600


def test_claims_without_an_effect_are_not_drawn(tmp_path):
    nothing = ledger().assign(effect=np.nan)
    assert study_figures.draw_study({"claims": nothing}, tmp_path) == []
