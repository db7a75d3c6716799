"""Panels of lines with bands from plotted numbers (see :mod:`snn_probe.drawing.study_numbers`): one style for a whole study.

Groups are rows of panels. Every panel of a quantity has the same scale. Nothing here reads or writes a file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from snn_probe.drawing.style import (
    MARKERS,
    Handles,
    add_legend,
    dashed_look,
    filled,
    letters,
    looks,
    note,
    stacked,
    style,
)

_LEAST = 1.35  # inches, the least width of a panel
_MOST_MARKERS = 8  # on a line
_STACKED = 1.8  # inches, the width up to which titles of two parts have two lines
_SHARE = 0.04  # of the range that a scale leaves free above and below
_DECADES = {2: (1.0,), 1: (1.0, 3.0), 0: (1.0, 2.0, 5.0)}  # decades on an axis -> its round numbers


@dataclass(frozen=True)
class Curves:
    """How lines are drawn: the columns that are x, panels and lines, and the words.

    ``panel``: panels side by side; ``line``: lines in a panel, "arm" in the colours of the arms, another column from
    dark to light, "seed" all alike; ``dash``: a column whose second value is drawn dashed and hollow. ``mark``: a column whose
    values on the x axis are marked by dotted lines. ``ylabel``: by panel, or of
    all; panels with a label of their own have a scale of their own. ``log_from``: the ratio of highest to lowest value
    beyond which a scale of positive numbers is logarithmic. ``said``: what the legend adds.
    """

    x: str
    xlabel: str
    ylabel: str | Mapping[str, str]
    panel: str = "variant"
    line: str = "arm"
    dash: str | None = None
    mark: str | None = None
    log_from: float = float("inf")
    whole: bool = False
    words: Callable[[str, object], str] = field(default=lambda column, value: str(value))
    said: str = ""


@dataclass(frozen=True)
class Panel:
    """Axes, what of the numbers they show, and whether they are the leftmost of a row and the lowest of a column."""

    ax: Axes
    cell: tuple
    left: bool
    low: bool

    def rows(self, table: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
        """The rows of the table that belong here: those with the cell's values in the columns ``keys``."""
        for name, value in zip(keys, self.cell, strict=True):
            table = table[table[name] == value]
        return table


def grid(
    table: pd.DataFrame, rows: Sequence[str], column: str, width: float, *, height: float = 0.72, least: float = _LEAST,
    layout: Literal["constrained", "compressed"] = "constrained", **options,
) -> tuple[Figure, list[Panel]]:  # fmt: skip
    """A figure with a panel for every cell of ``table``: the columns ``rows`` downwards, ``column`` to the right.

    Where a row has more panels than fit at ``least`` inches, it becomes several; where all would have only one, they
    stand side by side. ``height`` is in widths of a panel; ``options`` go to ``add_subplot``.
    """
    there = set(table[[*rows, column]].itertuples(index=False, name=None))
    above = list(dict.fromkeys(table[list(rows)].itertuples(index=False, name=None)))
    across = list(dict.fromkeys(table[column]))
    fits = max(1, int(width / least))
    columns = min(fits, len(across) if len(across) > 1 else len(above))
    cells: list[tuple] = []
    for row in above:
        whole = [(*row, value) for value in across]
        cells += whole if len(across) <= fits else [cell for cell in whole if cell in there]
        cells += [()] * (-len(cells) % columns if len(across) > 1 else 0)  # the next row begins at the left
    count = -(-len(cells) // columns)
    figure = Figure(figsize=(width, count * (0.45 + height * min(width / columns, 2.8))), layout=layout)
    at = {i: cell for i, cell in enumerate(cells) if cell in there}
    return figure, [
        Panel(
            figure.add_subplot(count, columns, i + 1, **options), cell,
            left=i % columns == 0 or i - 1 not in at, low=i + columns not in at,
        )
        for i, cell in at.items()
    ]  # fmt: skip


def title(ax: Axes, *parts: str) -> None:
    """The panel's title: the parts on one line where they fit, or else below each other."""
    place: Any = ax.get_subplotspec()
    figure: Any = ax.figure
    inches = figure.get_figwidth() / place.get_gridspec().ncols
    most = letters(inches - 0.5)
    said = [part for part in parts if part]
    whole = ", ".join(said)
    text = whole if len(whole) <= most and inches > _STACKED else "\n".join(filled(part, inches - 0.5) for part in said)
    ax.set_title(text, fontsize=7.5, pad=3)


def draw_curves(numbers: pd.DataFrame, how: Curves, width: float) -> Figure:
    """One figure of all panels: lines of the mean, bands from the lowest to the highest seed."""
    with style():
        numbers = numbers if "variant" in numbers else numbers.assign(variant="")
        keys = ["group", how.panel] if how.panel == "variant" else ["group", "variant", how.panel]
        figure, panels = grid(numbers, keys[:-1], how.panel, width)
        known = _line_looks(numbers, how)
        for panel in panels:
            rows = panel.rows(numbers, keys)
            _draw_lines(panel.ax, rows, how, known)
            _label(panel, how, rows, several=len(set(numbers[how.panel])) > 1)
        _scale(panels, numbers, how)
        counts = sorted(set(numbers["n_seeds"])) if "n_seeds" in numbers else []
        seeds = " to ".join(str(count) for count in dict.fromkeys([counts[0], counts[-1]])) if counts else ""
        mean = f"line: mean of {seeds} seeds, band: lowest to highest" if counts and counts[-1] > 1 else ""
        dashed = not how.dash or len(set(numbers.dropna(subset="mean")[how.dash])) > 1
        if said := "; ".join(filter(None, (mean, how.said if dashed else ""))):
            note(panels[0].ax, said)
        add_legend(figure, Handles(figure.axes), width)
    return figure


def _line_looks(numbers: pd.DataFrame, how: Curves) -> dict[object, dict]:
    """Label, colour and marker of each line."""
    arms = looks(numbers["arm"])
    if how.line == "seed":
        return {}
    values = list(dict.fromkeys(numbers[how.line]))
    if how.line == "arm":
        return {arm: {"label": arms[arm].label, "color": arms[arm].color, "marker": arms[arm].marker} for arm in values}
    shades = colormaps["viridis"]([0.85 * i / max(len(values) - 1, 1) for i in range(len(values))])
    labels = [how.words(how.line, value) for value in values]
    sizes = stacked(len(values)) if how.line == "layer" else [{}] * len(values)
    return {
        value: {"label": label, "color": shade, "marker": MARKERS[i % len(MARKERS)], **size}
        for i, (value, label, shade, size) in enumerate(zip(values, labels, shades, sizes, strict=True))
    }


def _draw_lines(ax: Axes, rows: pd.DataFrame, how: Curves, known: dict) -> None:
    dashes = list(dict.fromkeys(rows[how.dash])) if how.dash else [None]
    arms = looks(rows["arm"])
    for (value, arm), line in rows.groupby([how.line, "arm"], sort=False):
        look = known.get(value) or {"label": None, "color": arms[arm].color, "marker": ""}
        for dash in dashes:
            points = line[line[how.dash] == dash] if how.dash else line
            first = dash == dashes[0]
            order = list(known).index(value) if known else 0
            every = max(1, -(-len(points) // _MOST_MARKERS))
            drawn = {**look} if first else {**dashed_look(look), "label": None}
            drawn["markevery"] = (order % every, every)
            if "mean" not in points:
                ax.plot(points[how.x], points["density"].where(points["density"] > 0), **drawn)
                continue
            x, low, high = (points[name].to_numpy(float) for name in (how.x, "low", "high"))
            if len(x) == 1:  # no line: side by side, with a bar instead of a band
                x = x + 1.2 * (order - (len(known) - 1) / 2) / max(len(known), 1)
                ax.plot([x, x], [low, high], color=look["color"], lw=0.8)
            ax.plot(x, points["mean"], **drawn)
            if (high > low).any():
                ax.fill_between(x, low, high, color=look["color"], alpha=0.15, lw=0)
            if "converged" in points and not points["converged"].all():
                note(ax, "hollow: not converged in a seed, a lower bound")
                hollow = points[~points["converged"].astype(bool)]
                ax.plot(hollow[how.x], hollow["mean"], ls="none", marker=look["marker"], mfc="white",
                        mec=look["color"], mew=0.8, zorder=3)  # fmt: skip


def _label(panel: Panel, how: Curves, rows: pd.DataFrame, *, several: bool) -> None:
    ax, value, own = panel.ax, panel.cell[-1], isinstance(how.ylabel, Mapping)
    ylabel = how.ylabel[value] if own else how.ylabel
    ax.set(xlabel=how.xlabel if panel.low else "", ylabel=ylabel if panel.left or own else "")
    name = looks([value])[value].label if how.panel == "arm" else how.words(how.panel, value)
    title(ax, name if several and not own else "", *reversed(panel.cell[:-1]))
    ax.xaxis.set_major_locator(MaxNLocator(5 if how.whole else 4, integer=how.whole, steps=[1, 2, 5, 10]))
    if (only := rows[how.x].unique()).size == 1:
        ax.set(xlim=(only[0] - 1, only[0] + 1), xticks=only)
    for value in sorted(set(rows[how.mark])) if how.mark else []:
        ax.axvline(value, color="0.4", lw=0.8, ls=(0, (1, 1.5)), zorder=0.9)


def _scale(panels: list[Panel], numbers: pd.DataFrame, how: Curves) -> None:
    """One y scale for all panels of a quantity, logarithmic where the numbers span so much."""
    own = isinstance(how.ylabel, Mapping)
    for value in list(dict.fromkeys(numbers[how.panel])) if own else [None]:
        rows = numbers if value is None else numbers[numbers[how.panel] == value]
        _one_scale([panel.ax for panel in panels if value is None or panel.cell[-1] == value], rows, how)
    if not own:
        for panel in panels:
            panel.ax.tick_params(labelleft=panel.left)


def _one_scale(axes: list[Axes], rows: pd.DataFrame, how: Curves) -> None:
    values = rows[["mean", "low", "high"]] if "mean" in rows else rows[["density"]].where(rows[["density"]] > 0)
    low, high = values.min(axis=None), values.max(axis=None)
    if not low <= high:
        return
    log = low > 0 and high / low > how.log_from
    if log:
        limits = (low / (high / low) ** _SHARE, high * (high / low) ** _SHARE)
    else:
        room = _SHARE * (high - low) or 0.5
        limits = (low - room, high + room)
    for ax in axes:
        if log:
            ax.set_yscale("log")
            round_numbers(ax, *limits)
        ax.set_ylim(*limits)
    for ax in axes[1:]:
        ax.sharey(axes[0])


def round_numbers(ax: Axes, low: float, high: float) -> None:
    """Round numbers on a logarithmic y axis, the more in a decade the fewer decades there are."""
    decades = len(str(int(high / low))) - 1
    few = MaxNLocator(3, steps=[1, 2, 5, 10])  # less than a factor of 5 holds too few numbers of 1, 2, 5
    many = LogLocator(subs=_DECADES[min(decades, 2)], numticks=7)
    ax.yaxis.set_major_locator(few if high < 5 * low else many)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
