"""Figures of loss slices: a table and an Axes in, the Axes out; no torch, no files.

What is not finite is drawn hatched (contour), hollow (line) or left open (surface), never as a number. Whole figures
of several panels are made by :mod:`snn_probe.landscape_panels`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps, patheffects
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm, Normalize
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from .figure_style import called, note, series_of
from .results import IDENTIFYING
from .slices import Slice, slices

LABELS = (r"$\alpha$", r"$\beta$")

_LOG_FROM = 10.0  # losses whose ratio is larger than this are coloured, and drawn, on a logarithmic scale
_LEVELS = 9  # about how many contour lines
COLORS = ListedColormap(colormaps["viridis"](np.linspace(0.15, 1.0, 256)), "landscape")  # black lines show on all
_LABELLED = 0.25  # extent of a contour, as a share of the axes, from which it is labelled
_STEPS = {1: (1.0,), 3: (1.0, 2.0, 5.0), 6: (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)}  # round numbers in a decade
_Look = dict[str, Any]  # in matplotlib's own words


def loss_line(
    table: pd.DataFrame,
    ax: Axes,
    *,
    objective: str | None = None,
    labels: Sequence[str] = LABELS,
    accuracy: bool = True,
) -> Axes:
    """Loss along a line (solid, left axis) and accuracy (dotted, right axis); one colour and marker per method.

    ``table`` is that of 1-D slices with one ``objective`` (or name the one to draw). Slices of one checkpoint along
    several directions become their mean with a band from lowest to highest. A marker is the lowest loss of a line, a
    hollow one near the upper edge a point that is not finite. Raises ValueError for slices with several betas, one
    alpha, or different alphas for one checkpoint.
    """
    rows = rows_of(table, objective)
    right = _accuracy_axis(ax) if accuracy and "accuracy" in rows else None
    many, open_points, values = set(), False, []
    for series in series_of(rows, IDENTIFYING):
        alphas, loss, correct = _lines(series.rows)
        mean = np.where(np.isfinite(loss).all(0), loss.mean(0), np.nan)
        values.append(mean)
        lowest = [int(np.nanargmin(mean))] if np.isfinite(mean).any() else []
        look: _Look = {"color": series.color, "linestyle": series.dash, "marker": series.marker, "markevery": lowest}
        ax.plot(alphas, mean, label=series.label or None, **look)
        many.add(len(loss))
        if len(loss) > 1:
            ax.fill_between(alphas, loss.min(0), loss.max(0), color=series.color, alpha=0.2, lw=0)
        if (lost := ~np.isfinite(mean)).any():
            edge: _Look = {"transform": ax.get_xaxis_transform(), "clip_on": False, "ls": "none", "ms": 4, "mew": 0.8}
            ax.plot(alphas[lost], np.full(lost.sum(), 0.97), marker=series.marker, mfc="none", mec=series.color, **edge)
            open_points = True
        if right is not None:
            right.plot(alphas, 100 * correct.mean(0), color=series.color, linestyle=(0, (1, 1.2)), lw=0.9)
    _scale_loss(ax, np.concatenate(values))
    ax.axvline(0.0, color="0.6", lw=0.6, zorder=0)
    said = ["marker: lowest loss"] + ["dotted: accuracy"] * (right is not None) + ["hollow: not finite"] * open_points
    said += [f"line: mean of {max(many)} directions, band: lowest to highest"] * (max(many) > 1)
    note(ax, ", ".join(said))
    ax.set(xlabel=labels[0], ylabel=loss_label(rows))
    return ax


def loss_contour(
    table: pd.DataFrame,
    ax: Axes,
    *,
    objective: str | None = None,
    norm: Normalize | None = None,
    trajectory: pd.DataFrame | None = None,
    labels: Sequence[str] = LABELS,
) -> Axes:
    """Contours of the loss on a plane with labelled levels; a plus is the network itself, a star the lowest point.

    ``table`` holds one 2-D slice (``objective`` chooses among several losses of it). ``norm`` is the colour scale,
    :func:`shared_norm` of all tables to be compared; None takes the table's own. ``trajectory`` has columns alpha and
    beta in the order of training, as ``pca_plane(...).coordinates``. Cells with a corner that is not finite are
    hatched. Raises ValueError for several slices or one with fewer than 2 alphas or betas.
    """
    shown = _single_plane(rows_of(table, objective))
    norm = norm if norm is not None else shared_norm(table, objective=objective)
    loss = np.ma.masked_invalid(shown.loss).T  # (B, A): beta runs upwards
    a, b = shown.alphas, shown.betas
    if loss.mask.any():
        corner, size = (a[0], b[0]), (a[-1] - a[0], b[-1] - b[0])
        ax.add_patch(Rectangle(corner, *size, fc="white", ec="0.6", hatch="////", lw=0, zorder=0.5))
        note(ax, "hatched: not finite")
    levels = contour_levels(norm)
    if loss.count() and loss.min() < loss.max():
        ax.contourf(a, b, loss, levels=levels, norm=norm, cmap=COLORS, extend="both", zorder=1)
        lines = ax.contour(a, b, loss, levels=levels, colors="black", linewidths=0.4, zorder=1.1)
        wide = _wide_enough(lines, a, b)
        for text in ax.clabel(lines, wide, fontsize=5.5, fmt="%g", inline=True, inline_spacing=2):
            text.set_path_effects([patheffects.withStroke(linewidth=1.2, foreground="white", alpha=0.8)])
    elif loss.count():
        ax.pcolormesh(a, b, loss, norm=norm, cmap=COLORS, zorder=1)
    _mark(ax, shown, loss)
    if trajectory is not None:
        _draw_trajectory(ax, trajectory, shown)
    ax.grid(False)
    ax.set(xlabel=labels[0], ylabel=labels[1], xlim=(a[0], a[-1]), ylim=(b[0], b[-1]))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10]))
    return ax


def loss_surface(
    table: pd.DataFrame,
    ax: Axes,
    *,
    objective: str | None = None,
    norm: Normalize | None = None,
    labels: Sequence[str] = LABELS,
) -> Axes:
    """The loss over a plane in three dimensions, in the colours of :func:`loss_contour`; ``ax`` has projection "3d".

    Where the colour scale is logarithmic, so is the height. Cells that are not finite are left open, their points
    hollow circles on the floor. A black dot is the lowest point. Raises ValueError as the contour does, and for an
    ``ax`` that is flat.
    """
    if not hasattr(ax, "plot_surface"):
        raise ValueError("loss_surface: ax is flat; make it with figure.add_subplot(projection='3d')")
    shown = _single_plane(rows_of(table, objective))
    norm = norm if norm is not None else shared_norm(table, objective=objective)
    log = isinstance(norm, LogNorm)
    loss = np.where(np.isfinite(shown.loss), shown.loss, np.nan)
    height = np.log10(loss) if log else loss
    b, a = np.meshgrid(shown.betas, shown.alphas)
    floor, top = (math.log10(v) if log else v for v in bounds(norm))
    solid: Any = ax  # with axes of its own kind
    corners = np.stack([loss[:-1, :-1], loss[1:, :-1], loss[1:, 1:], loss[:-1, 1:]]).mean(0)
    colors = COLORS(norm(np.ma.masked_invalid(corners)))
    solid.plot_surface(a, b, height, rstride=1, cstride=1, facecolors=_padded(colors), shade=False, lw=0.1, ec="0.25")
    if np.isfinite(loss).any():
        i, j = np.unravel_index(np.nanargmin(loss), loss.shape)
        ax.plot([a[i, j]], [b[i, j]], [height[i, j]], "o", color="black", ms=3, zorder=10, label="lowest point")
    lost = np.isnan(loss)
    if lost.any():
        look: _Look = {"ls": "none", "marker": "o", "mfc": "none", "mec": "0.4", "ms": 3, "label": "not finite"}
        ax.plot(a[lost], b[lost], np.full(lost.sum(), floor), **look)
    ax.set(xlabel=labels[0], ylabel=labels[1], zlabel=loss_label(rows_of(table, objective)), zlim=(floor, top))
    solid.view_init(elev=32, azim=-58)
    if log:
        low, high = bounds(norm)
        levels = [level for level in contour_levels(norm, 3) if low <= level <= high]
        solid.set_zticks(np.log10(levels), [f"{level:g}" for level in levels])
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
    ax.tick_params(pad=-2)
    ax.xaxis.labelpad = ax.yaxis.labelpad = solid.zaxis.labelpad = -6
    return ax


def loss_bar(figure: Figure, axes: Sequence[Axes], norm: Normalize, rows: pd.DataFrame) -> None:
    """The colour bar of planes that share a scale, with round numbers and the name of the loss."""
    levels = contour_levels(norm)
    bar = figure.colorbar(ScalarMappable(norm, COLORS), ax=axes, pad=0.02, aspect=25)
    ticks = levels[:: -(-len(levels) // 8)]
    bar.set_ticks(ticks, labels=[f"{level:g}" for level in ticks])
    bar.ax.minorticks_off()
    bar.set_label(loss_label(rows))


def shared_norm(table: pd.DataFrame, *, objective: str | None = None) -> Normalize:
    """One colour scale for all finite losses of a table, logarithmic where they are positive and span a decade."""
    rows = rows_of(table, objective)
    finite = np.concatenate([s.loss[np.isfinite(s.loss)] for s in slices(rows)])
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    if low == high:
        return Normalize(low - 0.5, high + 0.5)
    return LogNorm(low, high) if low > 0 and high / low > _LOG_FROM else Normalize(low, high)


def bounds(norm: Normalize) -> tuple[float, float]:
    """The lowest and the highest value of a colour scale that :func:`shared_norm` made."""
    assert norm.vmin is not None and norm.vmax is not None
    return norm.vmin, norm.vmax


def contour_levels(norm: Normalize, about: int = _LEVELS) -> list[float]:
    """Round numbers within a colour scale, some ``about`` of them."""
    low, high = bounds(norm)
    if isinstance(norm, LogNorm):
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        sets = [[m * 10.0**k for k in decades for m in ms if low < m * 10.0**k < high] for ms in _STEPS.values()]
        return [float(f"{v:.6g}") for v in min(sets, key=lambda s: (len(s) < 2, abs(len(s) - about)))]
    levels = MaxNLocator(about, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [float(f"{v:.6g}") for v in levels if low < v < high]


def rows_of(table: pd.DataFrame, objective: str | None) -> pd.DataFrame:
    """The rows of one objective, which must be named where there are several."""
    if missing := [name for name in ("objective", "alpha", "beta", "loss") if name not in table]:
        raise ValueError(f"the table has no column {missing[0]!r}; give the table of a loss_slice result")
    present = list(dict.fromkeys(table["objective"]))
    if objective is None and len(present) == 1:
        return table
    if objective not in present:
        came = "no objective was chosen" if objective is None else f"objective {objective!r} is not in the table"
        raise ValueError(f"{came}; choose one of its objectives: {', '.join(map(str, present))}")
    return table[table["objective"] == objective]


def _single_plane(rows: pd.DataFrame) -> Slice:
    found = slices(rows)
    if len(found) != 1:
        raise ValueError(f"the table holds {len(found)} slices; give one, or use draw, which gives each a panel")
    if min(len(found[0].alphas), len(found[0].betas)) < 2:
        raise ValueError(
            f"the grid has {len(found[0].alphas)} alphas and {len(found[0].betas)} betas; "
            "a plane needs at least 2 of each, draw a line with loss_line"
        )
    return found[0]


def _lines(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Alphas (A,), losses and accuracies (directions, A) of one checkpoint."""
    found = slices(rows)
    if any(len(s.betas) > 1 for s in found):
        raise ValueError("the table has several betas; draw a plane with loss_contour or loss_surface")
    if any(len(s.alphas) < 2 for s in found):
        raise ValueError("the grid has one point; measure a slice with at least 2 alphas")
    if any(not np.array_equal(s.alphas, found[0].alphas) for s in found):
        raise ValueError("slices of one checkpoint have different alphas; measure them at the same ones")
    return found[0].alphas, np.stack([s.loss[:, 0] for s in found]), np.stack([s.accuracy[:, 0] for s in found])


def _accuracy_axis(ax: Axes) -> Axes:
    right = ax.twinx()
    right.set(ylabel="Accuracy (%)", ylim=(0, 102))
    right.grid(False)
    right.spines["right"].set_visible(True)
    right.set_zorder(ax.get_zorder() - 1)  # accuracy behind the loss
    ax.patch.set_visible(False)
    return right


def _scale_loss(ax: Axes, values: np.ndarray) -> None:
    finite = values[np.isfinite(values)]
    if len(finite) and finite.min() > 0 and finite.max() / finite.min() > _LOG_FROM:
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())


def loss_label(rows: pd.DataFrame) -> str:
    """The loss axis label, with the objective where there is one."""
    name = rows["objective"].iloc[0]
    return f"Loss ({called(str(name))})"


def _wide_enough(lines: ContourSet, a: np.ndarray, b: np.ndarray) -> list[float]:
    """The levels whose contours are large enough to carry a label."""
    size = np.array([a[-1] - a[0], b[-1] - b[0]])
    found = []
    for level, path in zip(lines.levels, lines.get_paths(), strict=True):
        pieces = [piece for piece in map(np.asarray, path.to_polygons(closed_only=False)) if len(piece) > 1]
        if any((np.ptp(piece, axis=0) / size).max() > _LABELLED for piece in pieces):
            found.append(level)
    return found


def _mark(ax: Axes, shown: Slice, loss: np.ma.MaskedArray) -> None:
    look: _Look = {"ls": "none", "mec": "black", "zorder": 3, "clip_on": False}
    outline = [patheffects.withStroke(linewidth=2.2, foreground="white")]
    if shown.alphas[0] <= 0 <= shown.alphas[-1] and shown.betas[0] <= 0 <= shown.betas[-1]:
        ax.plot(0, 0, marker="+", ms=8, mew=1.0, label="the network", path_effects=outline, **look)
    if loss.count():
        j, i = np.unravel_index(loss.argmin(), loss.shape)
        look |= {"mfc": "#E69F00", "ms": 5.5, "mew": 0.4, "label": "lowest point"}
        ax.plot(shown.alphas[i], shown.betas[j], marker="*", **look)


def _draw_trajectory(ax: Axes, trajectory: pd.DataFrame, shown: Slice) -> None:
    if missing := [name for name in ("alpha", "beta") if name not in trajectory]:
        raise ValueError(f"the trajectory has no column {missing[0]!r}; give pca_plane(checkpoints).coordinates")
    x, y = (trajectory[name].to_numpy(dtype=float) for name in ("alpha", "beta"))
    inside = (x >= shown.alphas[0]) & (x <= shown.alphas[-1]) & (y >= shown.betas[0]) & (y <= shown.betas[-1])
    label = "training" if inside.all() else f"training ({(~inside).sum()} of {len(x)} checkpoints beyond the grid)"
    outline = [patheffects.withStroke(linewidth=2.0, foreground="white")]
    look: _Look = {"marker": "o", "ms": 2.2, "mec": "black", "mfc": "black", "lw": 0.8, "path_effects": outline}
    ax.plot(x, y, color="black", zorder=2.5, label=label, **look)


def _padded(colors: np.ndarray) -> np.ndarray:
    """Facecolors (A-1, B-1, 4) in the shape (A, B, 4) that plot_surface takes."""
    return np.pad(colors, ((0, 1), (0, 1), (0, 0)), mode="edge")
