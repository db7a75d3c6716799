"""Curves of a run and of the Fisher trace: learning curves, traces over timesteps, the information centroid."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from snn_probe.drawing.style import dashed_look, note, page, series_of
from snn_probe.results import IDENTIFYING
from snn_probe.tables import centroid

_LOG_FROM = 100.0  # traces whose ratio is larger than this, two decades, are drawn on a logarithmic axis


def learning_curves(table: pd.DataFrame, ax: Axes, *, quantity: str = "accuracy") -> Axes:
    """Accuracy (in percent) or loss over epochs: test solid, training dashed and hollow, a colour and marker per method.

    ``table`` has one row per run and epoch: ``epoch``, ``train_<quantity>`` and ``test_<quantity>`` (where no test
    is stated, validation is drawn), and any of ``run``, ``method``, ``seed`` and the other identifying columns.
    Accuracies are fractions from 0 to 1. Runs that differ in their seed alone become one line, their mean, with a
    band from the lowest to the highest, at the epochs that all of them have. Raises ValueError for another quantity,
    a table without these columns, an epoch that a run has twice, or accuracies beyond 1.
    """
    splits = _splits(table, quantity)
    apart = ["method", "dataset", "model", "num_steps"]
    if table.duplicated([name for name in (*apart, "seed", "epoch") if name in table]).any():
        apart += ["run", "seed"]  # the runs of a method differ in more than the seed: one line each
    all_series = series_of(table, apart, dashes=1)
    every = max(1, table["epoch"].nunique() // 6)
    repeats, drawn = set(), set()
    for i, series in enumerate(all_series):
        by_split = {split: _by_run(series.rows, f"{split}_{quantity}") for split in splits}
        by_split = {split: runs for split, runs in by_split.items() if not runs.empty}
        for split, runs in by_split.items():
            runs = runs * (100 if quantity == "accuracy" else 1)
            look: dict[str, Any] = {"color": series.color, "marker": series.marker}
            look = dashed_look(look) if split == "train" else look
            look["markevery"] = (i * every // len(all_series), every)  # markers of different lines side by side
            look["label"] = (series.label or None) if split == list(by_split)[-1] else None
            ax.plot(runs.index, runs.mean(axis=1), **look)
            repeats.add(runs.shape[1])
            drawn.add(split)
            if runs.shape[1] > 1:
                ax.fill_between(runs.index, runs.min(axis=1), runs.max(axis=1), color=series.color, alpha=0.2, lw=0)
    said = {"train": "dashed, hollow: train"} | {split: f"solid: {split}" for split in splits if split != "train"}
    note(ax, "; ".join(said[split] for split in reversed(splits) if split in drawn))
    if max(repeats, default=1) > 1:
        seeds = " to ".join(str(count) for count in sorted({min(repeats), max(repeats)}))
        note(ax, f"line: mean of {seeds} seeds, band: lowest to highest")
    ax.set(xlabel="Epoch", ylabel="Accuracy (%)" if quantity == "accuracy" else "Loss")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    if (only := table["epoch"].unique()).size == 1:
        ax.set(xlim=(only[0] - 1, only[0] + 1), xticks=only)
    return ax


def fisher_trace(table: pd.DataFrame, ax: Axes, *, layer: str = "all", estimator: str = "empirical") -> Axes:
    """The Fisher trace of a layer at every timestep, from 1; one line per checkpoint, band of one standard error.

    ``table`` is that of a ``fisher_trace`` result or of ``combine(results)``; ``estimator`` is what the y axis calls
    the estimate. The y axis is logarithmic when all traces are positive and span more than two decades. Labels name
    the method, epoch and seed where they differ between lines. Raises ValueError for another kind of table.
    """
    rows = centroid.layer_rows(table, layer)
    if "stderr" not in rows:
        rows = rows.assign(stderr=np.nan)
    rows = rows.replace([np.inf, -np.inf], np.nan)  # a gap in the line
    for series in series_of(rows, IDENTIFYING):
        line = series.rows.sort_values("timestep")
        x, y, error = (line[name].to_numpy(dtype=float) for name in ("timestep", "trace", "stderr"))
        ax.plot(x, y, label=series.label or None, color=series.color, marker=series.marker, linestyle=series.dash)
        if np.isfinite(error).any():
            ax.fill_between(x, y - error, y + error, color=series.color, alpha=0.2, lw=0)
    if rows["stderr"].notna().any():
        note(ax, "band: ±1 standard error")
    low, high = rows["trace"].min(), rows["trace"].max()
    if low > 0 and high / low > _LOG_FROM:
        ax.set_yscale("log")
        top = (rows["trace"] + rows["stderr"].fillna(0)).max()
        ax.set_ylim(low / 1.5, top * 1.2)  # a band that reaches below zero would stretch the axis for ever
    ax.set(xlabel="Timestep", ylabel=_of_layer(f"Fisher trace ({estimator})", layer))
    last = int(rows["timestep"].max())
    ax.set_xticks(range(1, last + 1, -(-last // 12)))  # at most 12 ticks, whole timesteps
    return ax


def information_centroid(table: pd.DataFrame, ax: Axes, *, layer: str = "all") -> Axes:
    """The information centroid over epochs; one line per run, bars of one standard error.

    ``table`` is that of ``combine(results)`` for results of ``fisher_trace``; ``snn_probe.tables.centroid`` has the formula
    and says what the standard error takes for granted. The y axis stays within the possible values, 1 to T.
    Raises ValueError for another kind of table, or when the epoch of a checkpoint is not known.
    """
    if "epoch" not in table or table["epoch"].isna().any():
        raise ValueError("the epoch of a checkpoint is missing; give combine(results) of results with known epochs")
    points: Any = centroid.information_centroid(table, layer=layer)
    for series in series_of(points, [name for name in IDENTIFYING if name not in ("epoch", "checkpoint")]):
        line = series.rows.sort_values("epoch")
        x, y, error = (line[name].to_numpy(dtype=float) for name in ("epoch", "centroid", "stderr"))
        look: dict[str, Any] = {"color": series.color, "marker": series.marker, "linestyle": series.dash}
        ax.errorbar(x, y, yerr=error, label=series.label or None, elinewidth=0.8, **look)
    if points["stderr"].notna().any():
        note(ax, "bars: ±1 standard error (independent timesteps)")
    last, reach = int(table["timestep"].max()), points["stderr"].fillna(0)
    low, high = (points["centroid"] - reach).min(), (points["centroid"] + reach).max()
    if np.isfinite(low):
        margin = max(0.1 * (high - low), 0.1)
        ax.set_ylim(max(low - margin, 0.95), min(high + margin, last + 0.05))
    ax.set(xlabel="Epoch", ylabel=_of_layer("Information centroid (timestep)", layer))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    return ax


# Probe -> its figures: the name, which ``draw`` takes and a file's name ends with, and the function.
FIGURES: dict[str, list[tuple[str, Callable[..., Axes]]]] = {
    "fisher_trace": [("fisher_trace", fisher_trace), ("information_centroid", information_centroid)],
    "metrics": [("accuracy_curves", learning_curves), ("loss_curves", partial(learning_curves, quantity="loss"))],
}


def figure_names(probe: str, table: pd.DataFrame) -> list[str]:
    """The figures of ``FIGURES[probe]`` that ``table`` has the rows for: a centroid curve needs two epochs or more."""
    names = [name for name, _ in FIGURES.get(probe, [])]
    several = "epoch" in table and table["epoch"].notna().all() and len(table["epoch"].unique()) > 1
    return [name for name in names if name != "information_centroid" or several]


def draw(
    name: str, table: pd.DataFrame, *, width: float = 3.25, title: str | None = None, measured_on: str = "", **options
) -> Figure:
    """A figure for print: ``name`` is one of ``FIGURES``, ``width`` in inches (3.25 is one column, 6.75 is two).

    The height follows from the width and from the legend, which lies below the axes and ends in ``measured_on``. ``options`` go to the figure's
    function, such as ``layer="conv1"``. The Figure belongs to no window: nothing global is touched.
    Raises ValueError for an unknown name and whatever the figure's function raises.
    """
    functions = dict(entry for entries in FIGURES.values() for entry in entries)
    return page(functions, name, table, width, title, options, measured_on)


def _splits(table: pd.DataFrame, quantity: str) -> list[str]:
    """Which of train and test (or else validation) the table has values of ``quantity`` for."""
    if quantity not in ("accuracy", "loss"):
        raise ValueError(f"learning_curves: quantity is {quantity!r}; choose 'accuracy' or 'loss'")
    stated = [
        split
        for split in ("train", "test", "validation")
        if f"{split}_{quantity}" in table and table[f"{split}_{quantity}"].notna().any()
    ]
    if "epoch" not in table or not stated:
        raise ValueError(
            f"learning_curves: the table has no {quantity} by epoch; give columns epoch, train_{quantity} and "
            f"test_{quantity}"
        )
    keys = [name for name in IDENTIFYING if name in table]
    if table.duplicated(keys).any():
        epoch = table.loc[table.duplicated(keys), "epoch"].iloc[0]
        raise ValueError(f"learning_curves: a run has epoch {epoch} twice; name the runs apart in the column 'run'")
    highest = max(table[f"{split}_accuracy"].max() for split in stated) if quantity == "accuracy" else 0
    if highest > 1:
        raise ValueError(f"learning_curves: an accuracy is {highest:g}; give fractions from 0 to 1, not percent")
    return stated[:2] if "train" in stated else stated[:1]


def _by_run(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """``column`` with a row per epoch and a column per run, at the epochs where every run that has it is finite."""
    keys = [name for name in ("run", "seed") if name in rows]
    groups = [run for _, run in rows.groupby(keys, dropna=False)] if keys else [rows]
    runs = pd.concat([run.set_index("epoch")[column].astype(float) for run in groups], axis=1)
    runs = runs.set_axis(runs.index.astype(float)).replace([np.inf, -np.inf], np.nan)
    return runs.dropna(axis="columns", how="all").dropna().sort_index()


def _of_layer(label: str, layer: str) -> str:
    return label if layer == "all" else f"{label}\nlayer {layer}"
