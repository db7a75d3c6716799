"""The scale of a loss: which rows hold it, what it is called, its colours, round levels and colour bar. No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from snn_probe.drawing.style import called
from snn_probe.tables.slices import slices

_LOG_FROM = 10.0  # losses whose ratio is larger than this are coloured, and drawn, on a logarithmic scale
_LEVELS = 9  # about how many contour lines
COLORS = ListedColormap(colormaps["viridis"](np.linspace(0.15, 1.0, 256)), "landscape")  # black lines show on all
_STEPS = {1: (1.0,), 3: (1.0, 2.0, 5.0), 6: (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)}  # round numbers in a decade


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


def loss_label(rows: pd.DataFrame) -> str:
    """The loss axis label, with the objective where there is one."""
    name = rows["objective"].iloc[0]
    return f"Loss ({called(str(name))})"


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


def loss_bar(figure: Figure, axes: Sequence[Axes], norm: Normalize, rows: pd.DataFrame) -> None:
    """The colour bar of planes that share a scale, with round numbers and the name of the loss."""
    levels = contour_levels(norm)
    bar = figure.colorbar(ScalarMappable(norm, COLORS), ax=axes, pad=0.02, aspect=25)
    ticks = levels[:: -(-len(levels) // 8)]
    bar.set_ticks(ticks, labels=[f"{level:g}" for level in ticks])
    bar.ax.minorticks_off()
    bar.set_label(loss_label(rows))


def scale_loss(ax: Axes, values: np.ndarray) -> None:
    """Make the y axis logarithmic where the finite losses ``values`` are positive and span a decade."""
    finite = values[np.isfinite(values)]
    if len(finite) and finite.min() > 0 and finite.max() / finite.min() > _LOG_FROM:
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
