"""Figures of curvature: eigenvalues and spectral density. A table and an Axes in, the Axes out; no torch, no files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from snn_probe.drawing.style import note, page, series_of
from snn_probe.results import IDENTIFYING

FLOOR = 1e-7  # densities below this share of the peak are not drawn; one eigenvalue among 1e6 still is


def eigenvalues(table: pd.DataFrame, ax: Axes, *, said: str = "") -> Axes:
    """Eigenvalues against their rank, one line per checkpoint; unconverged ones hollow. ``said``: operator, forward."""
    for series in series_of(table, IDENTIFYING):
        rows = series.rows.sort_values("rank")
        look: dict[str, Any] = {"color": series.color, "marker": series.marker}
        ax.plot(rows["rank"], rows["eigenvalue"], label=series.label or None, linestyle=series.dash, **look)
        open_ones = rows[~rows["converged"].astype(bool)]
        if len(open_ones):
            ax.plot(open_ones["rank"], open_ones["eigenvalue"], linestyle="none", markerfacecolor="white",
                    markeredgecolor=series.color, markeredgewidth=0.8, marker=series.marker, zorder=3)  # fmt: skip
    if not table["converged"].all():
        note(ax, "hollow: not converged, a lower bound")
    ax.set(xlabel="Rank", ylabel=_of("Eigenvalue", said))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if table["eigenvalue"].min() > 0:
        ax.set_ylim(bottom=0)
    return ax


def spectral_density(table: pd.DataFrame, ax: Axes, *, said: str = "") -> Axes:
    """Density of the eigenvalues, logarithmic, one line per checkpoint. ``said``: operator and forward mode."""
    for series in series_of(table, IDENTIFYING):
        rows = series.rows.sort_values("eigenvalue")
        shown = rows["density"].where(rows["density"] > FLOOR * table["density"].max())
        ax.plot(rows["eigenvalue"], shown, label=series.label or None, color=series.color, linestyle=series.dash)
    ax.set_yscale("log")
    ax.set(xlabel=_of("Eigenvalue", said), ylabel="Density")
    return ax


FIGURES: dict[str, list[tuple[str, Callable[..., Axes]]]] = {
    "hessian_eigenvalues": [("eigenvalues", eigenvalues)],
    "hessian_density": [("spectral_density", spectral_density)],
}


def figure_names(probe: str, table: pd.DataFrame) -> list[str]:
    """The figures of ``FIGURES[probe]``."""
    return [name for name, _ in FIGURES.get(probe, [])]


def draw(
    name: str, table: pd.DataFrame, *, width: float = 3.25, title: str | None = None, measured_on: str = "", **options
) -> Figure:
    """A figure for print, ``width`` inches wide, legend below with ``measured_on`` as its last words;
    ``name`` is one of ``FIGURES``."""
    functions = dict(entry for entries in FIGURES.values() for entry in entries)
    return page(functions, name, table, width, title, options, measured_on)


def _of(label: str, said: str) -> str:
    return f"{label}\n({said})" if said else label
