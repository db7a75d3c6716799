"""Bars, maps and planes of a study from plotted numbers (see :mod:`snn_probe.drawing.study_numbers`), arms side by side."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from snn_probe.drawing.activity import whisker
from snn_probe.drawing.landscape import loss_contour, loss_surface
from snn_probe.drawing.landscape_panels import AROUND, fit_height
from snn_probe.drawing.loss_scale import bounds, loss_bar, shared_norm
from snn_probe.drawing.over_time import gradient_map
from snn_probe.drawing.over_time import shared_norm as gradient_norm
from snn_probe.drawing.study_panels import Panel, grid, round_numbers, title
from snn_probe.drawing.style import Handles, Look, add_legend, letters, looks, note, style

_LABEL = 1.2  # inches, the least height of a panel of bars, which holds a line of its label
_LETTER = 0.05  # inches that a letter of an upright layer name takes


def draw_gradient_map(numbers: pd.DataFrame, width: float) -> Figure:
    """Layer x timestep maps of the mean norm over seeds, a panel per arm and group, all on one colour scale."""
    rows = numbers[numbers["path"] == "all"].rename(columns={"mean": "norm"})
    with style():
        tall = min(0.4 + 0.03 * rows["layer"].nunique(), 1.2)
        figure, panels = grid(rows, ["group"], "arm", width, height=tall)
        norm, names = gradient_norm(rows), looks(rows["arm"])
        for panel in panels:
            own = panel.rows(rows, ["group", "arm"])
            gradient_map(own[["layer", "timestep", "norm"]], panel.ax, norm=norm)
            panel.ax.set(xlabel="Timestep" if panel.low else "", ylabel="")
            panel.ax.tick_params(labelleft=panel.left, labelbottom=panel.low)
            title(panel.ax, names[panel.cell[-1]].label, panel.cell[0])
        bar = figure.colorbar(ScalarMappable(norm, "viridis"), ax=[panel.ax for panel in panels], pad=0.02, aspect=20)
        bar.set_label("Gradient norm")
        round_numbers(bar.ax, *bounds(norm))
        if (seeds := rows["n_seeds"].max()) > 1:
            note(panels[0].ax, f"mean of {seeds} seeds")
        add_legend(figure, Handles(figure.axes), width)
    return figure


def draw_planes(numbers: pd.DataFrame, width: float, *, surface: bool = False) -> Figure:
    """The loss on a plane, as contours or a surface: a panel per objective, group and arm, one scale each objective."""
    keys = ["objective", "group", "arm"]
    shape: dict[str, Any] = {"height": 0.66, "least": 1.6, **({"projection": "3d"} if surface else {})}
    with style():
        figure, panels = grid(numbers, keys[:-1], "arm", width, layout="compressed", **shape)
        if surface:
            engine: Any = figure.get_layout_engine()
            engine.set(h_pad=AROUND, w_pad=AROUND)
        names = looks(numbers["arm"])
        for objective in dict.fromkeys(numbers["objective"]):
            norm = shared_norm(numbers, objective=objective)
            own = [panel for panel in panels if panel.cell[0] == objective]
            for panel in own:
                rows = panel.rows(numbers, keys)
                (loss_surface if surface else loss_contour)(rows, panel.ax, norm=norm)
                title(panel.ax, names[panel.cell[-1]].label, panel.cell[1])
                _outside(panel, surface)
            loss_bar(figure, [panel.ax for panel in own], norm, numbers[numbers["objective"] == objective])
        fit_height(figure)
        add_legend(figure, Handles(figure.axes), width)
    return figure


def _outside(panel: Panel, surface: bool) -> None:
    """Labels at the outside only; the colour bar names the loss."""
    if surface:
        panel.ax.set(zlabel="")
        return
    panel.ax.set_box_aspect(1)
    panel.ax.tick_params(labelleft=panel.left, labelbottom=panel.low)
    for axis, shown in ((panel.ax.xaxis, panel.low), (panel.ax.yaxis, panel.left)):
        axis.label.set_visible(shown)


def draw_bars(numbers: pd.DataFrame, width: float, *, ylabel: str) -> Figure:
    """A bar per arm at every layer, whiskers from the lowest to the highest seed; a panel per group.

    A column ``unit`` is added to the label.
    """
    names = {arm: looks(numbers["arm"])[arm] for arm in dict.fromkeys(numbers["arm"])}
    layers = list(dict.fromkeys(numbers["layer"]))
    ylabel = f"{ylabel} ({numbers['unit'].iloc[0]})" if "unit" in numbers else ylabel
    ylabel = textwrap.fill(ylabel, letters(_LABEL))
    with style():
        figure, panels = grid(numbers.assign(all=""), ["group"], "all", width, height=0.55, least=2.2)
        for panel in panels:
            _bars(panel.ax, numbers[numbers["group"] == panel.cell[0]], names, layers)
            panel.ax.set(xlabel="Layer", ylabel=ylabel if panel.left else "")
            title(panel.ax, panel.cell[0])
            panel.ax.sharey(panels[0].ax) if panel is not panels[0] else None
        if (seeds := numbers["n_seeds"].max()) > 1:
            note(panels[0].ax, f"bar: mean of {seeds} seeds, whisker: lowest to highest")
        add_legend(figure, Handles(figure.axes), width)
    return figure


def _bars(ax: Axes, rows: pd.DataFrame, names: dict[str, Look], layers: list[str]) -> None:
    thick = 0.8 / len(names)
    ax.set_xlim(-0.6, len(layers) - 0.4)
    for i, (arm, look) in enumerate(names.items()):
        own = rows[rows["arm"] == arm].set_index("layer").reindex(layers)
        x = np.arange(len(layers)) + (i - (len(names) - 1) / 2) * thick
        drawn: dict[str, Any] = {"color": "0.55" if look.color == "#000000" else look.color, "label": look.label}
        whiskers = np.maximum([own["mean"] - own["low"], own["high"] - own["mean"]], 0.0)  # a mean may round past them
        ax.bar(x, own["mean"], 0.92 * thick, yerr=whiskers, error_kw=whisker(ax, thick), **drawn)
    figure: Any = ax.figure
    place: Any = ax.get_subplotspec()
    inches = 0.8 * figure.get_figwidth() / place.get_gridspec().ncols
    upright = sum(map(len, layers)) + 2 * len(layers) > letters(inches)
    ax.set_xticks(range(len(layers)), layers, rotation=90 if upright else 0)
    if upright and place.is_first_col():
        figure.set_figheight(figure.get_figheight() + _LETTER * max(map(len, layers)))
    ax.grid(False, axis="x")
