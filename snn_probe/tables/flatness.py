"""Flatness in numbers, from the table of a loss slice: how large the region of low loss is, how fast the loss rises.

Nothing here needs torch. Lengths are in units of the directions: of alpha and beta, whatever one unit of them means
(random filter-normalized directions: the length of each filter; PCA and eigenvectors: Euclidean distance).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from snn_probe.tables.slices import slices

_ANGLES = 720  # points of the circle on which the rise is averaged
_ROUNDING = 1e-12  # weights of interpolation up to this are rounding: their grid point takes no part


def flatness(table: pd.DataFrame, *, level: float, radius: float) -> pd.DataFrame:
    """One row per slice: its identifying columns, dimensions, loss, extent, share, rise, complete.

    ``table`` is that of a ``loss_slice`` result, of ``combine(results)``, or of ``combine_slices(results)``; all but
    the measured columns tell slices apart. ``loss`` is that at (0, 0).

    extent: where loss <= loss(0, 0) + ``level``; a length of alpha for a 1-D slice (``dimensions`` 1), an area of
    alpha x beta for a 2-D one. The loss is taken as linear between grid points, in 2-D on the four triangles of each
    cell around its centre, which has the mean of the corners. All of the grid counts, connected to (0, 0) or not;
    points that are not finite count as above. ``share``: extent over that of the whole grid. ``complete`` is False
    where the region reaches the edge of the grid or a point that is not finite: then the extent is a lower bound.

    rise: mean of loss - loss(0, 0) at distance ``radius`` from (0, 0): the two points of a line, a circle on a plane
    (bilinear between grid points). NaN where a point that is not finite takes part.

    Raises ValueError for a level or radius that is not positive, a radius beyond the grid, a grid of one point, an
    incomplete grid, and one without (0, 0).
    """
    for name, value in (("level", level), ("radius", radius)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise ValueError(f"flatness: {name} is {value!r}; give a positive number")
    rows = [{**s.keys, **_flatness(s.alphas, s.betas, s.loss, float(level), float(radius))} for s in slices(table)]
    return pd.DataFrame(rows)


def flatness_spread(found: pd.DataFrame, *, over: str = "directions") -> pd.DataFrame:
    """Means of extent, share and rise over the rows that differ in the column ``over`` alone, and their spread.

    ``found`` is what :func:`flatness` gave. Columns: the others that identify, ``dimensions``, ``n`` (how many rows),
    then each quantity and its standard deviation (``extent_std``; divisor n - 1, NaN for one row); ``complete`` where
    all rows are. Raises ValueError without the column ``over``.
    """
    if over not in found:
        raise ValueError(f"flatness_spread: there is no column {over!r}; give flatness(combine_slices(results), ...)")
    quantities = ["loss", "extent", "share", "rise"]
    keys = [name for name in found.columns if name not in (over, *quantities, "complete")]
    rows = []
    for values, group in found.groupby(keys, dropna=False, sort=False):
        row = {**dict(zip(keys, values, strict=True)), "n": len(group)}
        for name in quantities:
            row |= {name: group[name].mean(skipna=False), f"{name}_std": group[name].std(ddof=1, skipna=False)}
        rows.append({**row, "complete": bool(group["complete"].all())})
    return pd.DataFrame(rows)


def _flatness(alphas, betas, loss, level: float, radius: float) -> dict[str, object]:
    if 0.0 not in alphas or 0.0 not in betas:
        raise ValueError("flatness: the grid has no point (0, 0); measure a slice with 0 among alphas and betas")
    axes = [axis for axis in (alphas, betas) if len(axis) > 1]
    if not axes:
        raise ValueError("flatness: the grid has one point; measure a slice with at least 2 alphas")
    reach = min(min(-axis[0], axis[-1]) for axis in axes)
    if radius > reach:
        raise ValueError(
            f"flatness: radius is {radius:g}, but the grid reaches {reach:g} on its shortest side; give a smaller "
            "radius, or measure a wider slice"
        )
    centre = float(loss[np.searchsorted(alphas, 0.0), np.searchsorted(betas, 0.0)])
    whole = math.prod(float(axis[-1] - axis[0]) for axis in axes)
    row = {"dimensions": len(axes), "loss": centre}
    if not math.isfinite(centre):
        return {**row, "extent": math.nan, "share": math.nan, "rise": math.nan, "complete": False}
    values = np.where(np.isfinite(loss), loss, np.nan)
    values = values if len(axes) == 2 else values.reshape(-1)
    extent = (_area if len(axes) == 2 else _length)(axes, values, centre + level)
    rise = _mean_at(axes, values, radius) - centre
    complete = _complete(values, centre + level)
    return {**row, "extent": extent, "share": extent / whole, "rise": rise, "complete": complete}


def _length(axes: Sequence[np.ndarray], loss: np.ndarray, level: float) -> float:
    low, high = np.minimum(loss[:-1], loss[1:]), np.maximum(loss[:-1], loss[1:])
    with np.errstate(divide="ignore", invalid="ignore"):
        inside = np.where(high <= level, 1.0, np.clip((level - low) / (high - low), 0.0, 1.0))
    inside = np.where(np.isnan(low), 0.0, inside)
    return float((inside * np.diff(axes[0])).sum())


def _area(axes: Sequence[np.ndarray], loss: np.ndarray, level: float) -> float:
    corners = [loss[:-1, :-1], loss[1:, :-1], loss[1:, 1:], loss[:-1, 1:]]  # around the cell
    centre = np.sum(corners, axis=0) / 4
    cells = np.outer(*map(np.diff, axes))
    inside = np.sum([_below(corners[i], corners[i - 1], centre, level) for i in range(4)], axis=0) / 4
    return float((inside * cells).sum())


def _below(a: np.ndarray, b: np.ndarray, c: np.ndarray, level: float) -> np.ndarray:
    """Share of a triangle in which a linear function with values a, b, c at its corners is at most ``level``."""
    low, middle, high = np.sort([a, b, c], axis=0)  # NaN is sorted last
    with np.errstate(divide="ignore", invalid="ignore"):
        near_low = (level - low) ** 2 / ((middle - low) * (high - low))
        near_high = 1.0 - (high - level) ** 2 / ((high - low) * (high - middle))
    share = np.where(level <= middle, near_low, near_high)
    share = np.where(level >= high, 1.0, np.where(level <= low, 0.0, share))
    return np.where(np.isnan(high), 0.0, share)


def _complete(loss: np.ndarray, level: float) -> bool:
    """Whether the region below ``level`` ends inside the grid, away from points that are not finite."""
    around = np.pad(loss, 1, constant_values=np.nan)
    unknown, below = np.isnan(around), around <= level
    for axis in range(loss.ndim):  # grow by one point along each axis in turn: diagonals too
        unknown = unknown | np.roll(unknown, 1, axis) | np.roll(unknown, -1, axis)
    return not bool((unknown & below).any())


def _mean_at(axes: Sequence[np.ndarray], loss: np.ndarray, radius: float) -> float:
    """Mean of the interpolated loss at distance ``radius`` from the origin; NaN if a grid point that counts is NaN."""
    if len(axes) == 1:
        points = np.array([[-radius, radius]])
    else:
        angle = np.arange(_ANGLES) * 2 * np.pi / _ANGLES
        points = radius * np.stack([np.cos(angle), np.sin(angle)])
    cells, shares = [], []
    for axis, x in zip(axes, points, strict=True):
        cell = np.clip(np.searchsorted(axis, x, side="right") - 1, 0, len(axis) - 2)
        share = (x - axis[cell]) / (axis[cell + 1] - axis[cell])
        cells.append(cell)
        shares.append((1.0 - share, share))
    total: np.ndarray | float = 0.0
    for corner in itertools.product((0, 1), repeat=len(axes)):
        weight = math.prod(share[side] for share, side in zip(shares, corner, strict=True))
        value = loss[tuple(cell + side for cell, side in zip(cells, corner, strict=True))]
        total = total + np.where(np.abs(weight) > _ROUNDING, weight * value, 0.0)
    return float(np.mean(total))
