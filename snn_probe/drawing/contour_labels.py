"""Where the labels of contours go: wholly within the axes, off the marks, and apart from each other. No torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib import patheffects
from matplotlib.contour import ContourSet

_SIZE = 5.5  # points
_LETTER, _HEIGHT = 0.62 * _SIZE, 0.8 * _SIZE  # points, a digit of DejaVu Sans
_MARK = 5.0  # points from the middle of a mark to what a label keeps off
_FREE = 1.5  # points around a label
_LEAST = 0.25  # extent of a contour, as a share of the axes, from which it is labelled
_SHRINKS = 0.75  # share of its size that a panel at least keeps when colour bars and labels have found room beside it
_FAR = 25.0  # points, from which on labels are far enough apart
_BENT = 20.0  # points of distance that a straight piece is worth more than a bent one
_Box = tuple[float, float, float, float]  # middle and half extent


def label_contours(lines: ContourSet, marks: Iterable[tuple[float, float]]) -> None:
    """Write its level on each large piece of a contour, where there is room for it; otherwise on none.

    ``lines`` lie in axes with their final limits; ``marks`` are points (data) that no label may cover. The size of the
    axes is what it is now, less what a layout may still take.
    """
    ax = lines.axes
    figure: Any = ax.figure
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    corner, extent = np.array([left, bottom]), np.array([right - left, top - bottom])
    size = np.array(ax.bbox.size) * 72 / figure.dpi * _SHRINKS
    taken = [(*((np.array(mark) - corner) / extent * size), _MARK, _MARK) for mark in marks]
    places = []
    for level, path in zip(lines.levels, lines.get_paths(), strict=True):
        half = (0.5 * _LETTER * len(f"{level:g}") + _FREE, 0.5 * _HEIGHT + _FREE)
        for piece in map(np.asarray, path.to_polygons(closed_only=False)):
            shares = (piece - corner) / extent
            if len(piece) > 1 and np.ptp(shares, axis=0).max() > _LEAST:
                box = _room(shares * size, size, half, taken)
                if box is not None:
                    taken.append(box)
                    places.append(tuple(np.array(box[:2]) / size * extent + corner))
    if places:
        texts = ax.clabel(lines, fontsize=_SIZE, fmt="%g", manual=places, inline_spacing=2, use_clabeltext=True)
        for text in texts:
            text.set_path_effects([patheffects.withStroke(linewidth=1.2, foreground="white", alpha=0.8)])


def _room(line: np.ndarray, size: np.ndarray, half: tuple[float, float], taken: list[_Box]) -> _Box | None:
    """The best place for a label on a line (points, (N, 2)); None where it would cover something or be cut off."""
    steps = np.hypot(*np.diff(line, axis=0).T)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    at = np.linspace(0.0, along[-1], max(2, int(along[-1])))
    x, y = (np.interp(at, along, column) for column in line.T)
    reach = [np.clip(at + side * half[0], 0.0, along[-1]) for side in (-1, 1)]
    dx, dy = (np.interp(reach[1], along, column) - np.interp(reach[0], along, column) for column in line.T)
    length = np.maximum(np.hypot(dx, dy), 1e-9)
    cos, sin = np.abs(dx) / length, np.abs(dy) / length
    wide, high = half[0] * cos + half[1] * sin, half[0] * sin + half[1] * cos
    free = (x >= wide) & (x <= size[0] - wide) & (y >= high) & (y <= size[1] - high)
    near = np.full(len(at), _FAR)
    for cx, cy, bx, by in taken:
        free &= (np.abs(x - cx) >= wide + bx) | (np.abs(y - cy) >= high + by)
        near = np.minimum(near, np.hypot(x - cx, y - cy))
    if not free.any():
        return None
    best = int(np.argmax(np.where(free, near + _BENT * length / (2 * half[0]), -np.inf)))
    return float(x[best]), float(y[best]), float(wide[best]), float(high[best])
