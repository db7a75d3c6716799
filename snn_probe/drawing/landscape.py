"""Figures of loss slices: a table and an Axes in, the Axes out; no torch, no files.

What is not finite is drawn hatched (contour), hollow (line) or left open (surface), never as a number. Whole figures
of several panels are made by :mod:`snn_probe.drawing.landscape_panels`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from snn_probe.drawing.contour_labels import label_contours
from snn_probe.drawing.loss_scale import COLORS, bounds, contour_levels, loss_label, rows_of, scale_loss, shared_norm
from snn_probe.drawing.style import note, series_of
from snn_probe.results import IDENTIFYING
from snn_probe.tables.slices import Slice, slices

LABELS = (r"$\alpha$", r"$\beta$")
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
    scale_loss(ax, np.concatenate(values))
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
    ax.set(xlim=(a[0], a[-1]), ylim=(b[0], b[-1]))
    marks = _mark(ax, shown, loss)
    if trajectory is not None:
        marks += _draw_trajectory(ax, trajectory, shown)
    if loss.count() and loss.min() < loss.max():
        ax.contourf(a, b, loss, levels=levels, norm=norm, cmap=COLORS, extend="both", zorder=1)
        lines = ax.contour(a, b, loss, levels=levels, colors="black", linewidths=0.4, zorder=1.1)
        label_contours(lines, marks)
    elif loss.count():
        ax.pcolormesh(a, b, loss, norm=norm, cmap=COLORS, zorder=1)
    ax.grid(False)
    ax.set(xlabel=labels[0], ylabel=labels[1])
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
    solid.tick_params("z", pad=1)
    ax.xaxis.labelpad = ax.yaxis.labelpad = solid.zaxis.labelpad = -6
    return ax


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


def _mark(ax: Axes, shown: Slice, loss: np.ma.MaskedArray) -> list[tuple[float, float]]:
    """Mark the network and the lowest point; where they are."""
    marks = []
    look: _Look = {"ls": "none", "mec": "black", "zorder": 3, "clip_on": False}
    outline = [patheffects.withStroke(linewidth=2.2, foreground="white")]
    if shown.alphas[0] <= 0 <= shown.alphas[-1] and shown.betas[0] <= 0 <= shown.betas[-1]:
        ax.plot(0, 0, marker="+", ms=8, mew=1.0, label="the network", path_effects=outline, **look)
        marks.append((0.0, 0.0))
    if loss.count():
        j, i = np.unravel_index(loss.argmin(), loss.shape)
        look |= {"mfc": "#E69F00", "ms": 5.5, "mew": 0.4, "label": "lowest point"}
        ax.plot(shown.alphas[i], shown.betas[j], marker="*", **look)
        marks.append((float(shown.alphas[i]), float(shown.betas[j])))
    return marks


def _draw_trajectory(ax: Axes, trajectory: pd.DataFrame, shown: Slice) -> list[tuple[float, float]]:
    """Draw the checkpoints; where those within the grid are."""
    if missing := [name for name in ("alpha", "beta") if name not in trajectory]:
        raise ValueError(f"the trajectory has no column {missing[0]!r}; give pca_plane(checkpoints).coordinates")
    x, y = (trajectory[name].to_numpy(dtype=float) for name in ("alpha", "beta"))
    inside = (x >= shown.alphas[0]) & (x <= shown.alphas[-1]) & (y >= shown.betas[0]) & (y <= shown.betas[-1])
    label = "training" if inside.all() else f"training ({(~inside).sum()} of {len(x)} checkpoints beyond the grid)"
    outline = [patheffects.withStroke(linewidth=2.0, foreground="white")]
    look: _Look = {"marker": "o", "ms": 2.2, "mec": "black", "mfc": "black", "lw": 0.8, "path_effects": outline}
    ax.plot(x, y, color="black", zorder=2.5, label=label, **look)
    return list(zip(x[inside].tolist(), y[inside].tolist(), strict=True))


def _padded(colors: np.ndarray) -> np.ndarray:
    """Facecolors (A-1, B-1, 4) in the shape (A, B, 4) that plot_surface takes."""
    return np.pad(colors, ((0, 1), (0, 1), (0, 0)), mode="edge")
