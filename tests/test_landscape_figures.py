"""Tables of loss slices in; the lines, levels, marks and labels of the figures out."""

import math
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import LogNorm, Normalize, to_hex
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure

from snn_probe.drawing import landscape as landscape_figures
from snn_probe.drawing import landscape_panels, loss_scale
from snn_probe.drawing import style as figure_style
from snn_probe.results import Result
from snn_probe.tables.slices import combine_slices

GRID = np.linspace(-1, 1, 11)


def table(alphas=GRID, betas=GRID, scale=1.0, offset=0.0, objectives=("sdt",), bad=None, value=math.nan):
    """A bowl of loss with its lowest point at (0.2, 0); ``bad(alpha, beta)`` marks points that are not finite."""
    rows = []
    for k, objective in enumerate(objectives):
        for a in alphas:
            for b in betas:
                finite = bad is None or not bad(a, b)
                loss = k + offset + scale * (0.05 + 2 * (a - 0.2) ** 2 + b**2) if finite else value
                rows.append((objective, a, b, loss, math.exp(-abs(loss)) if finite else 0.0, finite))
    return pd.DataFrame(rows, columns="objective alpha beta loss accuracy finite".split())


def result(rows, method="sdt", directions="random, filter-normalized, seed 0", epoch=20):
    config = {"method": method, "dataset": "digits", "model": "tiny", "seed": 0, "num_steps": 4}
    card = {"run": f"{method}-seed0", "epoch": epoch, "kind": "last", "config": config}
    return Result("loss_slice", rows, {"directions": directions}, card)


def methods(betas=GRID, **options):
    scales = {"sdt": 4.0, "tet": 2.0, "trt": 1.0}
    return combine_slices(result(table(betas=betas, scale=s, **options), method=m) for m, s in scales.items())


def line(**options):
    return table(betas=[0.0], **options)


def axes(**options):
    return Figure().add_subplot(**options)


def contours(ax, filled):
    (found,) = [c for c in ax.collections if isinstance(c, ContourSet) and c.filled == filled]
    return found


def labels(ax):
    return ax.get_legend_handles_labels()[1]


# Lines


def test_loss_and_accuracy_along_a_line():
    ax = axes()
    assert landscape_figures.loss_line(line(), ax) is ax
    (drawn,) = [one for one in ax.lines if len(one.get_xdata()) == 11]
    np.testing.assert_allclose(drawn.get_xdata(), GRID)
    np.testing.assert_allclose(drawn.get_ydata(), line()["loss"])
    assert drawn.get_markevery() == [6]  # 0.2
    (right,) = [other for other in ax.figure.axes if other is not ax]
    np.testing.assert_allclose(right.lines[0].get_ydata(), 100 * line()["accuracy"])
    assert (ax.get_ylabel(), right.get_ylabel()) == ("Loss (SDT)", "Accuracy (%)")
    assert right.get_ylim()[0] == 0 and right.get_ylim()[1] >= 100
    assert labels(ax) == ["marker: lowest loss, dotted: accuracy"]
    assert ax.get_yscale() == "log"  # from 0.05 to 2.93


def test_methods_keep_their_colours_and_accuracy_may_be_left_out():
    ax = axes()
    rows = methods(betas=[0.0])
    landscape_figures.loss_line(rows, ax, accuracy=False, labels=("step", ""))
    assert labels(ax) == ["SDT", "TET", "TRT", "marker: lowest loss"]
    colors = [to_hex(one.get_color()) for one in ax.lines if len(one.get_xdata()) == 11]
    assert colors == [figure_style.METHODS[m][1].lower() for m in ("sdt", "tet", "trt")]
    assert len(ax.figure.axes) == 1 and ax.get_xlabel() == "step"


def test_several_directions_become_a_mean_with_a_band():
    slices = [result(line(scale=s), directions=f"seed {s}") for s in (1.0, 3.0)]
    ax = axes()
    landscape_figures.loss_line(combine_slices(slices), ax)
    drawn = next(one for one in ax.lines if len(one.get_xdata()) == 11)
    np.testing.assert_allclose(drawn.get_ydata(), line(scale=2.0)["loss"])
    band = ax.collections[0].get_paths()[0].vertices
    np.testing.assert_allclose(band[:, 1].max(), line(scale=3.0)["loss"].max())
    assert "line: mean of 2 directions, band: lowest to highest" in labels(ax)[-1]


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.1])
def test_points_of_a_line_that_are_not_finite_are_hollow(value):
    ax = axes()
    landscape_figures.loss_line(line(bad=lambda a, b: a < -0.7, value=value), ax)
    whole, hollow = [one for one in ax.lines if one.get_xdata()[0] == -1]
    assert np.isnan(whole.get_ydata()[:2]).all() and np.isfinite(whole.get_ydata()[2:]).all()
    np.testing.assert_allclose(hollow.get_xdata(), [-1, -0.8])
    assert hollow.get_markerfacecolor() == "none"
    assert labels(ax)[-1].endswith("hollow: not finite")


# Planes


def test_contours_lie_where_the_loss_is_and_the_lowest_point_is_marked():
    ax = axes()
    rows = table()
    assert landscape_figures.loss_contour(rows, ax) is ax
    lines = contours(ax, filled=False)
    levels = loss_scale.contour_levels(loss_scale.shared_norm(rows))
    assert list(lines.levels) == levels == [0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0]
    for level, path in zip(lines.levels, lines.get_paths(), strict=True):
        if len(path.vertices):
            a, b = path.vertices.T
            inside = (np.abs(a) < 0.99) & (np.abs(b) < 0.99)
            found = 0.05 + 2 * (a - 0.2) ** 2 + b**2
            assert np.abs(found - level)[inside].max(initial=0.0) < 3 * 0.2**2 / 4 + 1e-9  # chords of cells of 0.2
    marks = {one.get_label(): one.get_xydata()[0].tolist() for one in ax.lines}
    assert marks["the network"] == [0.0, 0.0]
    assert marks["lowest point"] == pytest.approx([0.2, 0.0])
    assert ax.get_xlim() == (-1, 1) and ax.get_ylim() == (-1, 1)
    assert (ax.get_xlabel(), ax.get_ylabel()) == (r"$\alpha$", r"$\beta$")
    assert {text.get_text() for text in ax.texts} <= {f"{level:g}" for level in levels} and ax.texts


def test_cells_that_are_not_finite_are_hatched_and_never_coloured():
    ax = axes()
    landscape_figures.loss_contour(table(bad=lambda a, b: a > 0.5), ax)
    (patch,) = [p for p in ax.patches if p.get_hatch()]
    assert patch.get_bbox().bounds == (-1, -1, 2, 2)
    filled = contours(ax, filled=True)
    assert max(path.vertices[:, 0].max() for path in filled.get_paths() if len(path.vertices)) <= 0.4 + 1e-9
    assert "hatched: not finite" in labels(ax)
    clean = axes()
    landscape_figures.loss_contour(table(), clean)
    assert not [p for p in clean.patches if p.get_hatch()] and "hatched: not finite" not in labels(clean)


def test_a_grid_without_a_finite_point_and_a_flat_one_are_drawn():
    for rows in (table(bad=lambda a, b: True), table(scale=0.0, offset=1.0)):
        ax = axes()
        landscape_figures.loss_contour(rows, ax)
        ax.figure.draw_without_rendering()


def test_the_trajectory_is_drawn_and_what_lies_beyond_the_grid_is_counted():
    path = pd.DataFrame({"checkpoint": range(4), "alpha": [3.0, 0.8, 0.5, 0.0], "beta": [0.0, -2.0, 0.1, 0.0]})
    ax = axes()
    landscape_figures.loss_contour(table(), ax, trajectory=path)
    (drawn,) = [one for one in ax.lines if len(one.get_xdata()) == 4]
    np.testing.assert_array_equal(drawn.get_xydata(), path[["alpha", "beta"]])
    assert drawn.get_label() == "training (2 of 4 checkpoints beyond the grid)"
    assert ax.get_xlim() == (-1, 1)
    with pytest.raises(ValueError, match="the trajectory has no column 'beta'; give pca_plane"):
        landscape_figures.loss_contour(table(), axes(), trajectory=path.drop(columns="beta"))


@pytest.mark.parametrize("offset", [0.0, 5.0])
def test_surface(offset):
    ax = axes(projection="3d")
    rows = table(offset=offset, bad=lambda a, b: a + b > 1.7)
    assert landscape_figures.loss_surface(rows, ax) is ax
    ax.figure.draw_without_rendering()
    finite = rows[rows["finite"]]["loss"]
    scale = (lambda v: v) if offset else np.log10
    assert ax.get_zlim() == pytest.approx((scale(finite.min()), scale(finite.max())))
    (lowest,) = [one for one in ax.lines if one.get_label() == "lowest point"]
    assert [float(v[0]) for v in lowest.get_data_3d()] == pytest.approx([0.2, 0.0, scale(finite.min())])
    (lost,) = [one for one in ax.lines if one.get_label() == "not finite"]
    assert len(lost.get_data_3d()[0]) == (~rows["finite"]).sum()
    assert ax.get_zlabel() == "Loss (SDT)"


def test_colour_scales():
    norm = loss_scale.shared_norm(methods())
    assert isinstance(norm, LogNorm) and norm.vmin == pytest.approx(0.05)
    assert norm.vmax == pytest.approx(4 * (0.05 + 2 * 1.2**2 + 1))
    narrow = loss_scale.shared_norm(table(offset=5.0))
    assert type(narrow) is Normalize and (narrow.vmin, narrow.vmax) == pytest.approx((5.05, 8.93))
    assert loss_scale.contour_levels(narrow) == [5.5, 6.0, 6.5, 7.0, 7.5, 8.0, 8.5]
    assert loss_scale.contour_levels(LogNorm(0.05, 30)) == [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0]
    flat = loss_scale.shared_norm(table(scale=0.0, offset=1.0))
    assert (flat.vmin, flat.vmax) == (0.5, 1.5)


# Whole figures

TRAJECTORY = pd.DataFrame({"alpha": [0.9, 0.5, 0.0], "beta": [0.4, -0.3, 0.0]})
CASES = {
    "line": ("loss_line", line(bad=lambda a, b: a < -0.7), {}),
    "lines": ("loss_line", methods(betas=[0.0], objectives=("sdt", "tet")), {}),
    "plane": ("loss_contour", table(), {"trajectory": TRAJECTORY, "labels": ("PC 1 (83 %)", "PC 2 (9 %)")}),
    "planes": ("loss_contour", methods(objectives=("sdt", "tet"), bad=lambda a, b: a > 0.9), {}),
    "surface": ("loss_surface", table(bad=lambda a, b: a > 0.9), {}),
    "surfaces": ("loss_surface", methods(), {}),
}


@pytest.mark.parametrize("width", [3.25, 6.75])
@pytest.mark.parametrize("case", CASES)
def test_nothing_is_clipped_and_nothing_overlaps(case, width):
    name, rows, options = CASES[case]
    title = "A title of a length that needs a second line in one column"
    figure = landscape_panels.draw(name, rows, width=width, title=title, **options)
    figure.draw_without_rendering()
    assert figure.get_figwidth() == width
    whole = figure.bbox
    boxes = [ax.get_tightbbox() for ax in figure.axes]
    for box in [*boxes, *(legend.get_window_extent() for legend in figure.legends)]:
        assert box.x0 >= whole.x0 - 1 and box.x1 <= whole.x1 + 1 and box.y0 >= whole.y0 - 1 and box.y1 <= whole.y1 + 1
    for legend in figure.legends:
        assert legend.get_window_extent().y1 <= min(box.y0 for box in boxes) + 1
    if name == "loss_contour":
        for i, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[i + 1 :])
        for ax in figure.axes:
            shown = [t.get_window_extent() for t in ax.get_xticklabels() if t.get_visible() and t.get_text()]
            spans = sorted((box.x0, box.x1) for box in shown)
            assert all(right[0] >= left[1] for left, right in pairwise(spans))


@pytest.mark.parametrize("width", [3.25, 6.75])
@pytest.mark.parametrize("case", ["plane", "planes", "ring"])
def test_labels_of_contours_lie_within_the_axes_and_off_the_marks(case, width):
    ring = ("loss_contour", table(alphas=GRID / 2, betas=GRID / 2, scale=9.0, offset=1.0), {})
    name, rows, options = CASES.get(case, ring)
    figure = landscape_panels.draw(name, rows, width=width, **options)
    figure.draw_without_rendering()
    planes = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
    assert sum(len(ax.texts) for ax in planes) >= 2 * len(planes)  # there are labels
    for ax in planes:
        inside = ax.get_window_extent()
        boxes = [text.get_window_extent() for text in ax.texts]
        marks = [ax.transData.transform(line.get_xydata()) for line in ax.lines if line.get_marker() in "+*"]
        for box in boxes:
            assert box.x0 >= inside.x0 and box.x1 <= inside.x1 and box.y0 >= inside.y0 and box.y1 <= inside.y1
            assert not any(box.contains(*mark[0]) for mark in marks)
        assert not any(box.overlaps(other) for i, box in enumerate(boxes) for other in boxes[i + 1 :])


@pytest.mark.parametrize("width", [3.25, 6.75])
@pytest.mark.parametrize("case", ["plane", "planes", "surface", "surfaces"])
def test_there_is_nothing_blank_above_the_panels_and_before_the_legend(case, width):
    name, rows, options = CASES[case]
    figure = landscape_panels.draw(name, rows, width=width, **options)
    figure.draw_without_rendering()
    boxes = [ax.get_tightbbox() for ax in figure.axes]
    (legend,) = figure.legends
    above = figure.bbox.y1 - max(box.y1 for box in boxes)
    below = min(box.y0 for box in boxes) - legend.get_window_extent().y1
    assert above < 0.3 * figure.dpi and below < 0.3 * figure.dpi


def test_a_single_plane_says_what_it_is_of():
    figure = landscape_panels.draw("loss_contour", combine_slices([result(table())]))
    assert figure.axes[0].get_title() == "SDT, digits, tiny, epoch 20"


def test_objectives_and_methods_get_a_panel_each_on_one_scale_per_objective():
    figure = landscape_panels.draw("loss_contour", CASES["planes"][1], width=6.75)
    planes = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
    bars = [ax for ax in figure.axes if ax.get_label() == "<colorbar>"]
    assert [ax.get_title() for ax in planes] == ["SDT", "TET", "TRT"] * 2
    assert [bar.get_ylabel() for bar in bars] == ["Loss (SDT)", "Loss (TET)"]
    for row, bar in zip((planes[:3], planes[3:]), bars, strict=True):
        norms = [contours(ax, filled=True).norm for ax in row]
        scales = {(norm.vmin, norm.vmax) for norm in norms}
        assert len(scales) == 1
        assert bar.get_ylim() == pytest.approx(next(iter(scales)))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["the network", "lowest point"]
    assert legend.get_title().get_text() == "hatched: not finite"


def test_slices_along_several_directions_are_told_apart():
    slices = [result(table(), directions=f"random, seed {s}") for s in (0, 1)]
    figure = landscape_panels.draw("loss_contour", combine_slices(slices), width=6.75)
    titles = [" ".join(ax.get_title().split()) for ax in figure.axes[:2]]
    assert all(title.endswith(f"random, seed {i}") for i, title in enumerate(titles))


def test_which_figures_a_table_has():
    assert landscape_panels.figure_names(line()) == ["loss_line"]
    assert landscape_panels.figure_names(table()) == ["loss_contour", "loss_surface"]
    assert landscape_panels.figure_names(table(alphas=[0.0], betas=[0.0])) == []


ONE = table(alphas=[0.0], betas=[0.0])


@pytest.mark.parametrize(
    ("name", "rows", "options", "sentence"),
    [
        ("loss_line", ONE, {}, r"the grid has one point; measure a slice with at least 2 alphas"),
        ("loss_contour", ONE, {}, r"the grid has 1 alphas and 1 betas; a plane needs at least 2 of each"),
        ("loss_surface", line(), {}, r"the grid has 11 alphas and 1 betas; a plane needs at least 2 of each"),
        ("loss_line", table(), {}, r"the table has several betas; draw a plane with loss_contour or loss_surface"),
        ("loss_contour", methods(), {}, r"the table holds 3 slices; give one, or use draw, which gives each a panel"),
        (
            "loss_contour",
            table(objectives=("sdt", "tet")),
            {},
            r"no objective was chosen; choose one of its objectives: sdt, tet",
        ),
        ("loss_line", line(), {"objective": "x"}, r"objective 'x' is not in the table; choose one of its"),
        ("loss_line", line().drop(columns="loss"), {}, r"the table has no column 'loss'; give the table of a"),
        ("loss_contour", table().head(100), {}, r"a slice has 100 of its 110 points; resume it to measure the others"),
        ("loss_surface", table(), {}, r"loss_surface: ax is flat; make it with figure\.add_subplot\(projection='3d'\)"),
    ],
)
def test_tables_that_cannot_be_drawn(name, rows, options, sentence):
    projection = {"projection": "3d"} if name == "loss_surface" and len(rows) < 100 else {}
    with pytest.raises(ValueError, match=sentence):
        getattr(landscape_figures, name)(rows, axes(**projection), **options)


def test_other_mistakes():
    with pytest.raises(ValueError, match=r"draw: there is no figure 'x'; choose one of loss_line, loss_co"):
        landscape_panels.draw("x", table())
    apart = [result(line(), directions="a"), result(line(alphas=GRID[::2]), directions="b")]
    with pytest.raises(ValueError, match=r"slices of one checkpoint have different alphas; measure them at the same"):
        landscape_figures.loss_line(combine_slices(apart), axes())


def test_the_table_is_left_as_it_was_and_the_same_bytes_come_out():
    for name, rows, options in CASES.values():
        before = rows.copy()
        first, second = (
            figure_style.figure_bytes(landscape_panels.draw(name, rows, **options), "svg") for _ in range(2)
        )
        assert first == second
        pd.testing.assert_frame_equal(rows, before)


def test_neither_torch_nor_pyplot_is_needed():
    code = (
        "import sys, snn_probe.drawing.landscape_panels, snn_probe.tables.flatness\n"
        "assert not {'torch', 'spikingjelly', 'matplotlib.pyplot'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
