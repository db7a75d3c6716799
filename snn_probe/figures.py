"""Figures: a table and an Axes in, the Axes out. Nothing is measured here, no file is read or written.

Each function draws into the Axes it is given and labels its lines; ``draw`` makes a whole figure for print, with the
legend below the axes. A line's colour and marker say the method; its shade and dash say which of that method's lines
it is (the last in epoch and seed is solid and darkest). So the lines can be told apart in grey print too.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.ticker import MaxNLocator

from . import centroid
from .results import IDENTIFYING

# The palette of Okabe and Ito (https://jfly.uni-koeln.de/color/): told apart with any colour vision.
METHODS = {  # method -> what figures call it, its colour, its marker
    "sdt": ("SDT", "#0072B2", "o"),
    "tet": ("TET", "#D55E00", "s"),
    "trt": ("TRT", "#009E73", "^"),
    "trt_control": ("TRT, no decay", "#CC79A7", "D"),
}
_OTHER_COLORS = ("#000000", "#56B4E9", "#E69F00", "#999999")  # the rest of the palette, for other methods
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")
_DASHES = ("-", (0, (3, 1.3)), (0, (1, 1)), (0, (4, 1, 1, 1)))  # short: seen in a legend too
_LIGHTEST = 0.5  # how far towards white the first line of a method is drawn
_LOG_FROM = 100.0  # traces whose ratio is larger than this, two decades, are drawn on a logarithmic axis
_NOTE = "note"  # gid of the legend entry that says what bands or bars mean
_GAP = 0.06  # inches left free beside a legend
_POINTS_PER_LETTER = 4.3  # mean width of a letter of DejaVu Sans at 7.5 points

_RC = {
    "pdf.fonttype": 42, "ps.fonttype": 42,  # TrueType: publishers refuse Type 3 fonts
    "svg.hashsalt": "snn_probe",  # the same figure gives the same bytes
    "font.size": 8, "axes.labelsize": 8, "axes.titlesize": 8, "legend.title_fontsize": 7,
    "xtick.labelsize": 7, "ytick.labelsize": 7, "legend.fontsize": 7,
    "lines.linewidth": 1.1, "lines.markersize": 4, "axes.linewidth": 0.6, "errorbar.capsize": 0,
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
    "axes.grid": True, "grid.color": "0.9", "grid.linewidth": 0.5,
    "lines.markeredgecolor": "white", "lines.markeredgewidth": 0.3,
    "legend.frameon": False, "legend.borderpad": 0.1, "legend.handlelength": 2.2, "legend.handletextpad": 0.4,
    "legend.columnspacing": 0.6,
    "savefig.bbox": "standard",  # the width asked for, whatever the user's own settings
}  # fmt: skip


def style() -> AbstractContextManager[None]:
    """The settings of every figure here, to use as ``with style():``; afterwards matplotlib is as it was.

    Text of 7 to 8 points at the printed size, TrueType (Type 42) fonts in PDF and PostScript, thin axes.
    """
    return matplotlib.rc_context(_RC)


def learning_curves(table: pd.DataFrame, ax: Axes, *, quantity: str = "accuracy") -> Axes:
    """Accuracy (in percent) or loss over epochs: training dashed, test solid, one colour and marker per method.

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
    all_series = _all_series(table, apart, dashes=1)
    every = max(1, table["epoch"].nunique() // 6)
    repeats = set()
    for i, series in enumerate(all_series):
        for split in splits:
            runs = _by_run(series.rows, f"{split}_{quantity}") * (100 if quantity == "accuracy" else 1)
            if runs.empty:
                continue
            dash = (0, (3, 1.2)) if split == "train" else "-"
            look = {"color": series.color, "marker": series.marker, "linestyle": dash}
            look["markevery"] = (i * every // len(all_series), every)  # markers of different lines side by side
            ax.plot(runs.index, runs.mean(axis=1), label=", ".join(filter(None, (series.label, split))), **look)
            repeats.add(runs.shape[1])
            if runs.shape[1] > 1:
                ax.fill_between(runs.index, runs.min(axis=1), runs.max(axis=1), color=series.color, alpha=0.2, lw=0)
    if max(repeats, default=1) > 1:
        seeds = " to ".join(str(count) for count in sorted({min(repeats), max(repeats)}))
        _note(ax, f"line: mean of {seeds} seeds, band: lowest to highest")
    ax.set(xlabel="Epoch", ylabel="Accuracy (%)" if quantity == "accuracy" else "Loss")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
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
    for series in _all_series(rows, IDENTIFYING):
        line = series.rows.sort_values("timestep")
        x, y, error = (line[name].to_numpy(dtype=float) for name in ("timestep", "trace", "stderr"))
        ax.plot(x, y, label=series.label or None, color=series.color, marker=series.marker, linestyle=series.dash)
        if np.isfinite(error).any():
            ax.fill_between(x, y - error, y + error, color=series.color, alpha=0.2, lw=0)
    if rows["stderr"].notna().any():
        _note(ax, "band: ±1 standard error")
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

    ``table`` is that of ``combine(results)`` for results of ``fisher_trace``; ``snn_probe.centroid`` has the formula
    and says what the standard error takes for granted. The y axis stays within the possible values, 1 to T.
    Raises ValueError for another kind of table, or when the epoch of a checkpoint is not known.
    """
    if "epoch" not in table or table["epoch"].isna().any():
        raise ValueError("the epoch of a checkpoint is missing; give combine(results) of results with known epochs")
    points = centroid.information_centroid(table, layer=layer)
    for series in _all_series(points, [name for name in IDENTIFYING if name not in ("epoch", "checkpoint")]):
        line = series.rows.sort_values("epoch")
        x, y, error = (line[name].to_numpy(dtype=float) for name in ("epoch", "centroid", "stderr"))
        look = {"color": series.color, "marker": series.marker, "linestyle": series.dash, "elinewidth": 0.8}
        ax.errorbar(x, y, yerr=error, label=series.label or None, **look)
    if points["stderr"].notna().any():
        _note(ax, "bars: ±1 standard error (independent timesteps)")
    last, error = int(table["timestep"].max()), points["stderr"].fillna(0)
    low, high = (points["centroid"] - error).min(), (points["centroid"] + error).max()
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


def draw(name: str, table: pd.DataFrame, *, width: float = 3.25, title: str | None = None, **options: object) -> Figure:
    """A figure for print: ``name`` is one of ``FIGURES``, ``width`` in inches (3.25 is one column, 6.75 is two).

    The height follows from the width and from the legend, which lies below the axes. ``options`` go to the figure's
    function, such as ``layer="conv1"``. The Figure belongs to no window: nothing global is touched.
    Raises ValueError for an unknown name and whatever the figure's function raises.
    """
    functions = dict(entry for entries in FIGURES.values() for entry in entries)
    if name not in functions:
        raise ValueError(f"draw: there is no figure {name!r}; choose one of {', '.join(functions)}")
    with style():
        figure = Figure(figsize=(width, 1 + 0.4 * width), layout="constrained")
        ax = functions[name](table, figure.subplots(), **options)
        if title:
            ax.set_title(textwrap.fill(title, _letters(width - 0.6)))
        label = [textwrap.fill(line, _letters(0.5 + 0.4 * width)) for line in ax.get_ylabel().splitlines()]
        ax.set_ylabel("\n".join(label))
        _add_legend(figure, ax, width)
    return figure


def figure_bytes(figure: Figure, format: str) -> bytes:
    """The figure as the bytes of a "png" (300 dots per inch), "pdf" or "svg" file; no date, so they can be compared.

    Raises ValueError for another format.
    """
    metadata = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}
    if format not in metadata:
        raise ValueError(f"figure_bytes: there is no format {format!r}; choose one of {', '.join(metadata)}")
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format=format, dpi=300, metadata=metadata[format])
    return buffer.getvalue()


@dataclass(frozen=True)
class _Series:
    """The rows that one line is drawn from, what the legend calls it, and how it looks."""

    rows: pd.DataFrame
    label: str
    color: str
    marker: str
    dash: object


def _all_series(table: pd.DataFrame, apart: Sequence[str], dashes: int = len(_DASHES)) -> list[_Series]:
    """One series per distinct value of the columns ``apart``, those of a method together, in order of epoch.

    ``dashes`` says how many dashes tell the lines of one method apart before they take another marker.
    """
    keys = [name for name in apart if name in table]
    groups = [rows for _, rows in table.groupby(keys, dropna=False, sort=False)] if keys else [table]
    identity = pd.concat([rows[keys].iloc[[0]] for rows in groups], ignore_index=True)
    methods = list(identity["method"].fillna("") if "method" in keys else [""] * len(groups))
    ranks = [*METHODS, *dict.fromkeys(method for method in methods if method not in METHODS)]
    by = [name for name in ("epoch", "seed", "num_steps", "checkpoint", "run") if name in keys]
    order = identity.assign(rank=[ranks.index(method) for method in methods]).sort_values(["rank", *by]).index
    labels = _labels(identity)
    found = []
    for position, i in enumerate(order):
        later = sum(methods[j] == methods[i] for j in order[position + 1 :])
        color, marker = _look(ranks.index(methods[i]), later, methods.count(methods[i]), dashes)
        found.append(_Series(groups[i], labels[i], color, marker, _DASHES[later % dashes]))
    return found


def _look(rank: int, later: int, count: int, dashes: int) -> tuple[str, str]:
    """Colour and marker of a line of the method of this rank, of whose ``count`` lines ``later`` come after it."""
    known = [color for _, color, _ in METHODS.values()]
    color = known[rank] if rank < len(known) else _OTHER_COLORS[(rank - len(known)) % len(_OTHER_COLORS)]
    white = _LIGHTEST * later / max(count - 1, 1)
    shade = to_hex([part + white * (1 - part) for part in to_rgb(color)])
    return shade, _MARKERS[(rank + len(METHODS) * (later // dashes)) % len(_MARKERS)]


def _labels(identity: pd.DataFrame) -> list[str]:
    """What tells the lines apart, in words; a single line is called by its method and epoch."""
    names = [name for name in ("method", "dataset", "model", "num_steps", "epoch", "seed") if name in identity]
    chosen = [name for name in names if len(identity[name].unique()) > 1]
    if len(identity) == 1:
        chosen = [name for name in ("method", "epoch") if name in identity and identity[name].notna().all()]
    for more in ("checkpoint", "run"):
        alike = identity.duplicated(chosen).any() if chosen else len(identity) > 1
        if alike and more in identity and len(identity[more].unique()) > 1:
            chosen.append(more)
    texts = {
        "method": lambda value: METHODS[value][0] if value in METHODS else str(value),
        "num_steps": lambda value: f"T={int(value)}",
        "epoch": lambda value: f"epoch {int(value)}",
        "seed": lambda value: f"seed {int(value)}",
    }
    return [
        ", ".join(f"{name} unknown" if pd.isna(row[name]) else texts.get(name, str)(row[name]) for name in chosen)
        for _, row in identity.iterrows()
    ]


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


def _note(ax: Axes, text: str) -> None:
    """A legend entry without data that says what the bands or bars are."""
    ax.fill_between([], [], color="0.8", lw=0, label=text, gid=_NOTE)


def _letters(inches: float) -> int:
    """How many letters of a label fit side by side."""
    return max(8, int(inches * 72 / _POINTS_PER_LETTER))


def _add_legend(figure: Figure, ax: Axes, width: float) -> None:
    """Put the legend below the axes, as wide as the figure allows, and make the figure higher by its height."""
    entries = list(zip(*ax.get_legend_handles_labels(), strict=True))
    lines = [(handle, textwrap.fill(label, _letters(width - 0.7))) for handle, label in entries if not _is_note(handle)]
    note = textwrap.fill(" ".join(label for handle, label in entries if _is_note(handle)), _letters(width - _GAP))

    def legend(columns: int) -> Legend:
        handles, labels = zip(*lines, strict=True) if lines else ((), ())
        return figure.legend(handles, labels, title=note or None, loc="outside lower center", ncols=columns)

    def size(columns: int) -> tuple[float, float]:
        trial = legend(columns)
        box = trial.get_window_extent()
        trial.remove()
        return box.width / figure.dpi, box.height / figure.dpi

    if entries:
        fitting = [columns for columns in range(1, len(lines) + 1) if size(columns)[0] <= width - _GAP] or [1]
        even = [columns for columns in fitting if len(lines) % columns == 0 and 2 * columns > fitting[-1]]
        columns = (even or fitting)[-1]
        figure.set_figheight(figure.get_figheight() + size(columns)[1])
        legend(columns)


def _is_note(handle: object) -> bool:
    return getattr(handle, "get_gid", lambda: None)() == _NOTE
