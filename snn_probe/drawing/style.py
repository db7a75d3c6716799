"""What all figures share: one style, how lines are told apart and named, the legend below, the bytes of a file.

A line's colour and marker say the method; its shade and dash say which of that method's lines it is (the last in epoch
and seed is solid and darkest). So the lines can be told apart in grey print too. Nothing here reads or writes a file.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.legend import Legend

# The palette of Okabe and Ito (https://jfly.uni-koeln.de/color/): told apart with any colour vision.
METHODS = {  # method, or arm of a study -> what figures call it, its colour, its marker
    "sdt": ("SDT", "#0072B2", "o"),
    "tet": ("TET", "#D55E00", "s"),
    "trt": ("TRT", "#009E73", "^"),
    "trt-l2": ("TRT-L2", "#CC79A7", "D"),  # the control arm of TRT: plain L2 of the same strength
    "switch": ("Switch", "#E69F00", "v"),
    "tit": ("TIT", "#56B4E9", "P"),
}
_OTHER_COLORS = ("#000000", "#999999", "#8C564B", "#5D3A9B")  # for other methods
MARKERS: tuple[Any, ...] = (
    *("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*"),
    *("d", "H", "8", (3, 1, 0), (5, 1, 0), (6, 2, 0)),  # three for each of METHODS
)
DASHED = (0, (3, 1.3))
_DASHES = ("-", DASHED, (0, (1, 1)), (0, (4, 1, 1, 1)))  # short: seen in a legend too
_LIGHTEST = 0.5  # how far towards white the first line of a method is drawn
_NOTE = "note"  # gid of the legend entry that says what bands or bars mean
_GAP = 0.06  # inches left free beside a legend
_POINTS_PER_LETTER = 4.3  # mean width of a letter of DejaVu Sans at 7.5 points
_RC: Any = {  # keys in matplotlib's own words
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


def figure_bytes(figure: Figure, format: str, *, dpi: int = 300) -> bytes:
    """The figure as the bytes of a "png" (``dpi`` dots per inch), "pdf" or "svg" file; no date: they can be compared.

    Raises ValueError for another format.
    """
    metadata = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}
    if format not in metadata:
        raise ValueError(f"figure_bytes: there is no format {format!r}; choose one of {', '.join(metadata)}")
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format=format, dpi=dpi, metadata=metadata[format])
    return buffer.getvalue()


def fewer_colors(png: bytes) -> bytes:
    """The same picture in the 256 colours that suit it best, a third as large; what a screen shows hardly differs."""
    from PIL import Image

    buffer = io.BytesIO()
    picture = Image.open(io.BytesIO(png)).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


@dataclass(frozen=True)
class Series:
    """The rows that one line is drawn from, what the legend calls it, and how it looks."""

    rows: pd.DataFrame
    label: str
    color: str
    marker: str
    dash: object


@dataclass(frozen=True)
class Look:
    """What figures call a method or an arm of a study, its colour and its marker."""

    label: str
    color: str
    marker: str


def looks(arms: Iterable[str]) -> dict[str, Look]:
    """The look of each arm of a study: that of ``METHODS``; other names in the order given."""
    others = [arm for arm in dict.fromkeys(arms) if arm not in METHODS]
    known = {arm: Look(*look) for arm, look in METHODS.items()}
    free = MARKERS[len(METHODS) :]
    new = {arm: Look(arm, _OTHER_COLORS[i % len(_OTHER_COLORS)], free[i % len(free)]) for i, arm in enumerate(others)}
    return known | new


def called(name: str) -> str:
    """What figures call a method, objective, network or data set; the user's own, package.module:name, by the name."""
    return METHODS[name][0] if name in METHODS else name.rpartition(":")[2]


def series_of(table: pd.DataFrame, apart: Sequence[str], dashes: int = len(_DASHES)) -> list[Series]:
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
        found.append(Series(groups[i], labels[i], color, marker, _DASHES[later % dashes]))
    return found


def _look(rank: int, later: int, count: int, dashes: int) -> tuple[str, str]:
    """Colour and marker of a line of the method of this rank, of whose ``count`` lines ``later`` come after it."""
    known = [color for _, color, _ in METHODS.values()]
    color = known[rank] if rank < len(known) else _OTHER_COLORS[(rank - len(known)) % len(_OTHER_COLORS)]
    white = _LIGHTEST * later / max(count - 1, 1)
    red, green, blue = (part + white * (1 - part) for part in to_rgb(color))
    shade = to_hex((red, green, blue))
    return shade, MARKERS[(rank + len(METHODS) * (later // dashes)) % len(MARKERS)]


def _labels(identity: pd.DataFrame) -> list[str]:
    """What tells the lines apart, in words; a single line is called by its method, data, network and epoch.

    A line of which some of that is not known is called by its run (for a file of weights its name) and by the rest.
    """
    names = [name for name in ("method", "dataset", "model", "num_steps", "epoch", "seed") if name in identity]
    chosen = [name for name in names if len(identity[name].unique()) > 1]
    if len(identity) == 1:
        known = [name for name in identity if identity[name].notna().all()]
        first = ("method",) if "method" in known else ("run",)
        chosen = [name for name in (*first, "dataset", "model", "epoch") if name in known]
    for more in ("checkpoint", "run"):
        alike = identity.duplicated(chosen).any() if chosen else len(identity) > 1
        if alike and more in identity and len(identity[more].unique()) > 1:
            chosen.append(more)
    if {"checkpoint", "epoch"} <= set(
        identity
    ) and "checkpoint" in chosen:  # the file of an epoch is called by its number
        numbered = [
            f"epoch {e}" if c == "epoch" and not pd.isna(e) else c
            for c, e in identity[["checkpoint", "epoch"]].to_numpy()
        ]
        identity = identity.assign(checkpoint=numbered)
    short = {name: _short_names(identity[name]) for name in ("method", "dataset", "model") if name in identity}
    return [_label(row, chosen, short) for _, row in identity.iterrows()]


def _label(row: pd.Series, chosen: Sequence[str], short: dict[str, dict[str, str]]) -> str:
    """The values of the columns ``chosen`` that are known, in words, after the run's name where others are not."""
    whole = {"num_steps": "T=", "epoch": "epoch ", "seed": "seed "}
    lost = any(pd.isna(row[name]) for name in chosen)
    names = [*["run"] * (lost and "run" in row), *chosen]
    said = [
        f"{whole[name]}{int(row[name])}" if name in whole else short.get(name, {}).get(row[name], str(row[name]))
        for name in names
        if not pd.isna(row[name])
    ]
    return ", ".join(dict.fromkeys(said)) or "unknown" * lost


def _short_names(values: pd.Series) -> dict[str, str]:
    """What figures call each value of a column; in full where two would be called the same."""
    known = [str(value) for value in values.dropna().unique()]
    short = {value: called(value) for value in known}
    return short if len(set(short.values())) == len(known) else {value: value for value in known}


def note(ax: Axes, text: str) -> None:
    """A legend entry without data that says what the bands or bars are."""
    ax.fill_between([], [], color="0.8", lw=0, label=text, gid=_NOTE)


def dashed_look(look: Mapping[str, Any]) -> dict[str, Any]:
    """The look of a dashed line beside the solid one of this look: hollow, and larger, so that it shows around that."""
    size = look.get("ms", matplotlib.rcParams["lines.markersize"]) + 1
    return {**look, "linestyle": DASHED, "mfc": "none", "mec": look["color"], "mew": 0.8, "ms": size}


def stacked(count: int) -> list[dict[str, float]]:
    """Line widths and marker sizes (points) of lines that may lie on each other: those drawn first show around others."""
    step = min(0.4, 1.4 / max(count - 1, 1))
    return [{"lw": 0.8 + step * later, "ms": 4 + 1.5 * step * later} for later in reversed(range(count))]


def letters(inches: float) -> int:
    """How many letters of a label fit side by side."""
    return max(8, int(inches * 72 / _POINTS_PER_LETTER))


def filled(text: str, inches: float) -> str:
    """The text on as few lines as it needs at this width, all about as long: no word stands alone on the last."""
    most = letters(inches)
    lines = len(textwrap.wrap(text, most))
    least = min(max(map(len, text.split()), default=1), most)
    return next("\n".join(part) for w in range(least, most + 1) if len(part := textwrap.wrap(text, w)) <= lines)


class Handles:
    """The legend entries of several axes, each once."""

    def __init__(self, axes: Sequence[Axes]):
        pairs = [pair for ax in axes for pair in zip(*ax.get_legend_handles_labels(), strict=True)]
        self.entries: dict[str, object] = {}
        for handle, label in pairs:
            self.entries.setdefault(label, handle)

    def get_legend_handles_labels(self) -> tuple[list, list[str]]:
        return list(self.entries.values()), list(self.entries)


def add_legend(figure: Figure, ax: Axes | Handles, width: float, *, said: str = "") -> None:
    """Put the legend below the axes, as wide as the figure allows, and make the figure higher by its height. ``said``
    stands after the notes about bands and bars."""
    entries = list(zip(*ax.get_legend_handles_labels(), strict=True))
    lines = [(handle, filled(label, width - 0.7)) for handle, label in entries if not is_note(handle)]
    notes = [label for handle, label in entries if is_note(handle)] + [said] * bool(said)
    note = filled("; ".join(notes), width - _GAP)

    def legend(columns: int) -> Legend:
        handles, labels = zip(*lines, strict=True) if lines else ((), ())
        return figure.legend(handles, labels, title=note or None, loc="outside lower center", ncols=columns)

    def size(columns: int) -> tuple[float, float]:
        trial = legend(columns)
        box = trial.get_window_extent()
        trial.remove()
        return box.width / figure.dpi, box.height / figure.dpi

    if lines or note:
        fitting = [columns for columns in range(1, len(lines) + 1) if size(columns)[0] <= width - _GAP] or [1]
        even = [columns for columns in fitting if len(lines) % columns == 0 and 2 * columns > fitting[-1]]
        columns = (even or fitting)[-1]
        figure.set_figheight(figure.get_figheight() + size(columns)[1])
        legend(columns)


def is_note(handle: object) -> bool:
    """Whether a legend entry is a note about bands or bars, not data."""
    return getattr(handle, "get_gid", lambda: None)() == _NOTE


def page(
    functions, name: str, table: pd.DataFrame, width: float, title: str | None, options, measured_on: str = ""
) -> Figure:
    """A figure of one panel that ``functions[name](table, axes, **options)`` draws, its legend below with
    ``measured_on`` as its last words.

    ``width`` in inches; the height follows from it and from the legend. Raises ValueError for an unknown name.
    """
    if name not in functions:
        raise ValueError(f"draw: there is no figure {name!r}; choose one of {', '.join(functions)}")
    with style():
        figure = Figure(figsize=(width, 1 + 0.4 * width), layout="constrained")
        ax = functions[name](table, figure.subplots(), **options)
        if title:
            ax.set_title(filled(title, width - 0.6))
        label = [filled(line, 0.5 + 0.4 * width) for line in ax.get_ylabel().splitlines()]
        ax.set_ylabel("\n".join(label))
        add_legend(figure, ax, width, said=measured_on)
    return figure
