"""All figures by name, whichever file they are in. (No torch, no files.)"""

import pandas as pd
from matplotlib.figure import Figure

from snn_probe import curvature_figures, figures, landscape_panels, time_figures
from snn_probe.figure_style import figure_bytes

__all__ = ["draw", "figure_bytes", "figure_names"]

_LANDSCAPE = ("loss_line", "loss_contour", "loss_surface")


def figure_names(probe: str, table: pd.DataFrame) -> list[str]:
    """The figures that a table of this probe's results (or "metrics") has the rows for."""
    if probe == "loss_slice":
        return landscape_panels.figure_names(table)
    for module in (figures, time_figures, curvature_figures):
        if probe in module.FIGURES:
            return module.figure_names(probe, table)
    return []


def draw(name: str, table: pd.DataFrame, *, width: float = 3.25, title: str | None = None, **options) -> Figure:
    """The figure ``name``, ``width`` inches wide; ``options`` go to its function. ValueError for an unknown name."""
    if name in _LANDSCAPE:
        return landscape_panels.draw(name, table, width=width, title=title, **options)
    for module in (time_figures, curvature_figures):
        if name in {known for entries in module.FIGURES.values() for known, _ in entries}:
            return module.draw(name, table, width=width, title=title, **options)
    return figures.draw(name, table, width=width, title=title, **options)
