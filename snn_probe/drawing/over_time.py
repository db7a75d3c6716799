"""Figures of what happens along the timesteps: temporal gradients, accuracy; all by name, activity too. No torch.

Each function takes a table and an Axes and gives the Axes back; ``draw`` makes a whole figure for print, with a panel
for every checkpoint where one panel cannot hold several.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from snn_probe.drawing.activity import checked, energy, firing_rate
from snn_probe.drawing.style import MARKERS, Handles, add_legend, dashed_look, filled, note, series_of, stacked, style
from snn_probe.results import IDENTIFYING

_SHOWN_LAYERS = 8  # most layers that are drawn as lines; the map has them all
_PANEL = 1.3  # inches, the least width of a panel
_TICK = 0.17  # inches from one number below an axis to the next
_PARTS = ((1000, (1.0,)), (100, (1.0, 3.0)), (3, (1.0, 2.0, 5.0)), (0, (1.0, 1.2, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)))
_COLORS = "viridis"


def gradient_norms(table: pd.DataFrame, ax: Axes, *, layer: str | None = None) -> Axes:
    """Norm of the gradient at the input current over timesteps, solid; dashed and hollow with the path through time cut.

    ``table`` is that of ``temporal_gradient_norms`` for one checkpoint: a line per layer, dark to light with depth (of
    more than 8 layers, 8 evenly spread), and thick to thin, so that lines on each other show. With ``layer``, that of ``combine(results)``: a line per checkpoint.
    Logarithmic; what is zero or unknown is a gap. Raises ValueError for several checkpoints without ``layer``, an
    unknown layer, or another kind of table.
    """
    rows = checked(table, "temporal_gradient_norms", ("layer", "timestep", "norm", "norm_spatial"))
    if layer is None:
        _one_checkpoint(rows, "layer=..., or draw, which gives each a panel")
        lines = _layer_lines(rows)
    else:
        lines = [
            (s.rows, {"label": s.label or None, "color": s.color, "marker": s.marker})
            for s in series_of(_of_layer(rows, layer), IDENTIFYING, dashes=1)
        ]
    for line, look in lines:
        line = line.sort_values("timestep")
        for column in ("norm", "norm_spatial"):
            y = line[column].to_numpy(dtype=float)
            drawn = {**dashed_look(look), "label": None} if column == "norm_spatial" else look
            ax.plot(line["timestep"], np.where(y > 0, y, np.nan), **drawn)
    if (rows[["norm", "norm_spatial"]] > 0).any(axis=None):
        ax.set_yscale("log")
        _plain_numbers(ax, *ax.get_ylim())
    hidden = rows["layer"].nunique() - len(lines) if layer is None else 0
    note(ax, "; ".join([_cut_words(rows), *[f"{len(lines)} of {len(lines) + hidden} layers"] * (hidden > 0)]))
    where = "at the input current" if layer is None else f"at the input of {layer}"
    ax.set(xlabel="Timestep", ylabel=f"Gradient norm\n{where}")
    _timesteps(ax, rows)
    return ax


def gradient_map(table: pd.DataFrame, ax: Axes, *, norm: Normalize | None = None) -> Axes:
    """The same norms as a map, layers downwards and timesteps to the right, on a logarithmic colour scale.

    ``table`` holds one checkpoint; ``norm`` is :func:`shared_norm` of all tables to be compared, None takes its own.
    Hatched where the gradient is exactly zero. Raises ValueError for several checkpoints or another kind of table.
    """
    rows = checked(table, "temporal_gradient_norms", ("layer", "timestep", "norm"))
    _one_checkpoint(rows, "one, or use draw, which gives each a panel")
    layers = list(dict.fromkeys(rows["layer"]))
    grid = rows.pivot_table(index="layer", columns="timestep", values="norm", dropna=False).loc[layers]
    values = grid.to_numpy(dtype=float)
    positive = np.ma.masked_where(~(values > 0), values)
    if positive.mask.any():
        look: dict[str, Any] = {"fc": "white", "ec": "0.6", "hatch": "////", "lw": 0, "zorder": 0.5}
        ax.add_patch(Rectangle((0, 0), 1, 1, transform=ax.transAxes, **look))
        note(ax, "hatched: not a number, or zero" if np.isnan(values).any() else "hatched: zero")
    ax.imshow(positive, norm=norm or shared_norm(table), cmap=_COLORS, aspect="auto", zorder=1)
    ax.grid(False)
    ax.set(xlabel="Timestep", ylabel="Layer", yticks=range(len(layers)), yticklabels=layers)
    every = -(-len(grid.columns) // _most_ticks(ax))
    ax.set_xticks(range(0, len(grid.columns), every), grid.columns[::every])
    return ax


def shared_norm(table: pd.DataFrame) -> Normalize:
    """One logarithmic colour scale for all norms of a table that are not zero."""
    values = table["norm"].to_numpy(dtype=float)
    values = values[np.isfinite(values) & (values > 0)]
    low, high = (values.min(), values.max()) if len(values) else (1.0, 1.0)
    return LogNorm(low, high) if low < high else LogNorm(low / 1.5, high * 1.5)


def timestep_accuracy(table: pd.DataFrame, ax: Axes) -> Axes:
    """Accuracy of the mean of the first t logits over t; one line per checkpoint, band of one standard error.

    ``table`` is that of ``timestep_accuracy`` or of ``combine(results)``, whose column ``num_steps`` says the T of
    training: a dotted line. Raises ValueError for another kind of table.
    """
    rows = checked(table, "timestep_accuracy", ("timestep", "accuracy", "stderr"))
    for series in series_of(rows, IDENTIFYING):
        line = series.rows.sort_values("timestep")
        x, y, error = (line[name].to_numpy(dtype=float) for name in ("timestep", "accuracy", "stderr"))
        look: dict[str, Any] = {"color": series.color, "marker": series.marker, "linestyle": series.dash}
        ax.plot(x, 100 * y, label=series.label or None, markevery=-(-len(x) // 12), **look)
        ax.fill_between(x, 100 * (y - error), 100 * (y + error), color=series.color, alpha=0.2, lw=0)
    trained = sorted(set(rows["num_steps"].dropna())) if "num_steps" in rows else []
    for steps in trained:
        ax.axvline(steps, color="0.4", lw=0.8, ls=(0, (1, 1.5)), zorder=0.9)
    note(ax, "band: ±1 standard error" + (", dotted: T of training" if trained else ""))
    ax.set(xlabel="Timesteps read, t", ylabel="Accuracy (%)")
    _timesteps(ax, rows)
    return ax


FIGURES: dict[str, list[tuple[str, Callable[..., Axes]]]] = {
    "temporal_gradient_norms": [("gradient_norms", gradient_norms), ("gradient_map", gradient_map)],
    "timestep_accuracy": [("timestep_accuracy", timestep_accuracy)],
    "spiking_activity": [("firing_rate", firing_rate), ("energy", energy)],
}


def figure_names(probe: str, table: pd.DataFrame) -> list[str]:
    """The figures of ``FIGURES[probe]`` that ``table`` has the rows for: lines over time need two timesteps or more."""
    several = table["timestep"].max() > 1
    return [
        name for name, _ in FIGURES.get(probe, []) if several or name not in ("gradient_norms", "timestep_accuracy")
    ]


def draw(
    name: str, table: pd.DataFrame, *, width: float = 3.25, title: str | None = None, measured_on: str = "", **options
) -> Figure:
    """A figure for print, ``width`` inches wide, legend below with ``measured_on`` as its last words; ``name`` is one of
    ``FIGURES``.

    ``gradient_map``, and ``gradient_norms`` without ``layer``, have a panel per checkpoint, on one scale. ``options``
    go to the figure's function. Raises ValueError for an unknown name and whatever the function raises.
    """
    functions = dict(entry for entries in FIGURES.values() for entry in entries)
    if name not in functions:
        raise ValueError(f"draw: there is no figure {name!r}; choose one of {', '.join(functions)}")
    with style():
        figure = Figure(figsize=(width, 0.95 + 0.4 * width), layout="constrained")
        if name == "gradient_map" or (name == "gradient_norms" and options.get("layer") is None):
            _draw_panels(figure, name, functions[name], table, width, options)
        else:
            ax = functions[name](table, figure.subplots(), **options)
            upright = [label.get_text() for label in ax.get_xticklabels() if label.get_rotation() == 90]
            figure.set_figheight(figure.get_figheight() + 0.06 * max(map(len, upright), default=0))
        if title:
            figure.suptitle(filled(title, width - 0.2), fontsize=8)
        add_legend(figure, Handles(figure.axes), width, said=measured_on)
    return figure


def _draw_panels(figure: Figure, name: str, function, table: pd.DataFrame, width: float, options: dict) -> None:
    """A panel per checkpoint; axes labelled at the outside, and layers in each panel where they differ."""
    rows = checked(table, "temporal_gradient_norms", ("layer", "timestep", "norm"))
    panels = series_of(rows, IDENTIFYING)
    is_map = name == "gradient_map"
    columns = max(1, min(len(panels), int((width - 0.5) / _PANEL)))
    count = -(-len(panels) // columns)
    height = 0.13 * rows["layer"].nunique() if is_map else 0.6 * width / columns
    figure.set_figheight(count * (min(max(height, 1.2), 2.4) + 0.25) + 0.4)
    grid = figure.subplots(count, columns, squeeze=False, sharex=not is_map, sharey=not is_map)
    axes = list(grid.flat[: len(panels)])
    for ax in grid.flat[len(panels) :]:
        ax.remove()
    if is_map:
        options = {"norm": shared_norm(rows), **options}
    alike = len({tuple(dict.fromkeys(series.rows["layer"])) for series in panels}) == 1
    for i, (ax, series) in enumerate(zip(axes, panels, strict=True)):
        function(series.rows, ax, **options)
        left, bottom = i % columns == 0, i + columns >= len(panels)
        ax.tick_params(labelleft=left or (is_map and not alike), labelbottom=bottom)
        ax.set(xlabel=ax.get_xlabel() if bottom else "", ylabel=ax.get_ylabel() if left else "")
        room = (width - 1.2) / columns - 0.1 if is_map else width / columns - 0.3  # beside a bar and layers' names
        ax.set_title(filled(series.label, room), fontsize=7.5, pad=3)
    if is_map:
        bar = figure.colorbar(
            ScalarMappable(options["norm"], _COLORS), ax=axes, pad=0.02, aspect=20, label="Gradient norm"
        )
        _plain_numbers(bar.ax, options["norm"].vmin, options["norm"].vmax)


def _one_checkpoint(rows: pd.DataFrame, instead: str) -> None:
    keys = [name for name in IDENTIFYING if name in rows]
    if keys and len(rows[keys].drop_duplicates()) > 1:
        raise ValueError(f"the table holds {len(rows[keys].drop_duplicates())} checkpoints; give {instead}")


def _of_layer(rows: pd.DataFrame, layer: str) -> pd.DataFrame:
    if layer not in set(rows["layer"]):
        raise ValueError(f"layer {layer!r} is not in the table; choose one of {', '.join(rows['layer'].unique())}")
    return rows[rows["layer"] == layer]


def _cut_words(rows: pd.DataFrame) -> str:
    """What the dashed lines are, or why there are none."""
    known = rows.groupby("layer")["norm_spatial"].agg(lambda found: found.notna().any())
    if not known.any():
        return "no dashed lines: the path through time of these neurons cannot be cut"
    return "dashed, hollow: path through time cut" + (" (where it can be)" if not known.all() else "")


def _layer_lines(rows: pd.DataFrame) -> list[tuple[pd.DataFrame, dict]]:
    """The rows of each layer and how its lines look; of many layers, some, first and last among them."""
    layers = list(dict.fromkeys(rows["layer"]))
    if len(layers) > _SHOWN_LAYERS:
        layers = [layers[i] for i in np.linspace(0, len(layers) - 1, _SHOWN_LAYERS).round().astype(int)]
    colors = colormaps[_COLORS](np.linspace(0.0, 0.85, len(layers)))
    looks = zip(layers, colors, MARKERS, stacked(len(layers)), strict=False)
    return [
        (rows[rows["layer"] == name], {"label": name, "color": c, "marker": m, **size}) for name, c, m, size in looks
    ]


def _plain_numbers(ax: Axes, low: float, high: float) -> None:
    """Ticks of a logarithmic y axis at round numbers, the more in a decade the fewer decades there are."""
    parts = next(parts for ratio, parts in _PARTS if high / low > ratio)
    ax.yaxis.set_major_locator(LogLocator(subs=parts, numticks=8))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_locator(NullLocator())


def _timesteps(ax: Axes, rows: pd.DataFrame) -> None:
    last = int(rows["timestep"].max())
    ax.set_xticks(range(1, last + 1, -(-last // _most_ticks(ax))))  # whole timesteps, not too many


def _most_ticks(ax: Axes) -> int:
    """How many numbers of two digits fit below ``ax``."""
    figure: Any = ax.figure
    inches = ax.get_position().width * figure.get_figwidth()
    return max(2, min(12, int(0.8 * inches / _TICK)))
