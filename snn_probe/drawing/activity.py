"""Figures of activity: firing rates and energy, as bars. A table and an Axes in, the Axes out; no torch, no files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from snn_probe.drawing.style import letters, note, series_of
from snn_probe.results import IDENTIFYING

_MAC_PJ = 4.6  # see probes/activity.py, which figures may not import
_GREY = "0.55"  # of bars that would be black
_WHISKER = 0.2  # width of a whisker as a share of its bar, at most 0.8 points
_UNITS = ((1e9, "mJ"), (1e6, "µJ"), (1e3, "nJ"), (1.0, "pJ"))


def firing_rate(table: pd.DataFrame, ax: Axes) -> Axes:
    """Firing rate of every spiking layer, mean over timesteps; a bar per checkpoint, whiskers from lowest to highest.

    ``table`` is that of ``spiking_activity`` or of ``combine(results)``. Raises ValueError for another kind of table.
    """
    rows = checked(table, "spiking_activity", ("layer", "timestep", "firing_rate"))
    rows = rows[rows["firing_rate"].notna() & (rows["layer"] != "all")]
    for bars in _bars(rows, ax):
        rates = bars.rows.groupby("layer")["firing_rate"].agg(["mean", "min", "max"]).reindex(bars.layers)
        whiskers = np.maximum(
            [rates["mean"] - rates["min"], rates["max"] - rates["mean"]], 0.0
        )  # a mean may round past them
        ax.bar(bars.x, rates["mean"], bars.width, yerr=whiskers, error_kw=whisker(ax, bars.width), **bars.look)
    if rows["timestep"].max() > 1:
        note(ax, "bar: mean over timesteps, whisker: lowest to highest")
    ax.set(ylabel="Firing rate\n(spikes per timestep)")
    return ax


def energy(table: pd.DataFrame, ax: Axes) -> Axes:
    """Energy of every synaptic layer for one example, all timesteps; a bar per checkpoint, its total in the legend.

    ``table`` is that of ``spiking_activity`` or of ``combine(results)``. Hatched: multiply-accumulates at 4.6 pJ, the
    others are accumulates at 0.9 pJ. Only ratios are comparable. Raises ValueError for another kind of table.
    """
    rows = checked(table, "spiking_activity", ("layer", "timestep", "synops", "energy_pj"))
    rows = rows[rows["energy_pj"].notna() & (rows["layer"] != "all")]
    sums = [(b, b.rows.groupby("layer")[["synops", "energy_pj"]].sum().reindex(b.layers)) for b in _bars(rows, ax)]
    scale, unit = energy_unit(max((found["energy_pj"].max() for _, found in sums), default=0.0))
    hatched = False
    for bars, found in sums:
        drawn = ax.bar(bars.x, found["energy_pj"] / scale, bars.width, color=bars.look["color"])
        for bar, (synops, cost) in zip(drawn, found.to_numpy(), strict=True):
            if synops > 0 and np.isclose(cost, _MAC_PJ * synops):
                bar.set(hatch="/////", edgecolor="white", linewidth=0)
                hatched = True
        total = found["energy_pj"].sum()
        said = f"total {total / energy_unit(total)[0]:.3g} {energy_unit(total)[1]}"
        label = ": ".join(filter(None, (bars.look["label"], said)))
        ax.fill_between([], [], color=bars.look["color"], lw=0, label=label)  # in the legend without the hatching
    if hatched:
        note(ax, "hatched: multiply-accumulates")
    ax.set(ylabel=f"Energy per example ({unit})")
    return ax


def checked(table: pd.DataFrame, probe: str, columns: tuple[str, ...]) -> pd.DataFrame:
    """The table; ValueError unless it has these columns and each of its rows once."""
    if missing := [name for name in columns if name not in table]:
        raise ValueError(
            f"the table has no column {missing[0]!r}; give the table of a {probe} result, or combine(results)"
        )
    keys = [name for name in (*IDENTIFYING, "layer", "timestep") if name in table]
    if table.duplicated(keys).any():
        raise ValueError(
            f"timestep {table.loc[table.duplicated(keys), 'timestep'].iloc[0]} occurs twice for one checkpoint; give "
            "the table of one result, or combine(results) of different checkpoints"
        )
    return table


def whisker(ax: Axes, width: float) -> dict[str, Any]:
    """How a whisker is drawn that leaves its bar, ``width`` wide on an x axis that has its limits, to be seen."""
    figure: Any = ax.figure
    low, high = ax.get_xlim()
    points = 72 * ax.get_position().width * figure.get_figwidth() * width / (high - low)
    return {"elinewidth": min(_WHISKER * points, 0.8), "ecolor": "0.25"}


def energy_unit(picojoules: float) -> tuple[float, str]:
    """The unit in which this energy is a number of at least 1: picojoules in it, and its name."""
    return next(((scale, name) for scale, name in _UNITS if picojoules >= scale), _UNITS[-1])


@dataclass(frozen=True)
class _Bars:
    """The bars of one checkpoint: its rows, and at which places of the layers they stand."""

    rows: pd.DataFrame
    layers: list[str]
    x: np.ndarray
    width: float
    look: dict


def _bars(rows: pd.DataFrame, ax: Axes) -> list[_Bars]:
    """The bars of each checkpoint, side by side at each layer; names the layers on the x axis."""
    layers = list(dict.fromkeys(rows["layer"]))
    all_series = series_of(rows, IDENTIFYING)
    width = 0.8 / len(all_series)
    figure: Any = ax.figure
    upright = sum(map(len, layers)) + len(layers) > letters(0.75 * figure.get_figwidth())
    ax.set_xticks(range(len(layers)), layers, rotation=90 if upright else 0)
    ax.grid(False, axis="x")
    ax.set(xlabel="Layer", xlim=(-0.6, len(layers) - 0.4))
    places = [np.arange(len(layers)) + (i - (len(all_series) - 1) / 2) * width for i in range(len(all_series))]
    return [
        _Bars(
            s.rows,
            layers,
            x,
            0.95 * width,
            {"label": s.label or None, "color": _GREY if s.color == "#000000" else s.color},
        )
        for s, x in zip(all_series, places, strict=True)
    ]
