"""All claims of a study on one page: each effect with its interval, in its own unit, and its verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from snn_probe.drawing.style import add_legend, filled, note, style

VERDICTS = {  # verdict -> colour, marker; told apart without colour too
    "supported": ("#009E73", "o"),
    "contradicted": ("#D55E00", "X"),
    "undecided": ("#666666", "s"),
}
_OTHER = ("#666666", "D")
_ROW = 0.085  # inches, an interval
_LINE = 0.1  # inches, a line of the statements' text
_BETWEEN = 0.045  # inches
_BESIDE = 0.1  # inches left free to the left and to the right
_TEXT = 0.56  # share of the figure that claims may take
_TEXT_SIZE = 0.8  # of the usual text
_NARROW = 5.0  # inches; below, claims are called by their short names
_COLUMNS = ["claim", "statement", "group", "effect", "low", "high", "unit", "smallest_effect", "n_seeds", "p_corrected",
            "verdict"]  # fmt: skip


def effects(ledger: pd.DataFrame) -> pd.DataFrame:
    """The rows of a ledger that have an effect, claims of one unit together."""
    rows = ledger.reindex(columns=_COLUMNS)
    rows = rows[rows["effect"].notna()]
    ranks = pd.DataFrame({name: pd.factorize(rows[name])[0] for name in ("unit", "claim")}, index=rows.index)
    return rows.loc[ranks.sort_values(["unit", "claim"], kind="stable").index].reset_index(drop=True)


def draw_effects(numbers: pd.DataFrame, width: float) -> Figure:
    """A panel per unit, a claim below the other, its groups together: effect, 95 % interval, and in grey what is too
    small to matter."""
    with style():
        units = {unit: _claims(rows, width) for unit, rows in numbers.groupby("unit", sort=False)}
        heights = [sum(claim.height for claim in claims) for claims in units.values()]
        figure = Figure(figsize=(width, sum(heights) + 0.4 * len(units)), layout="constrained")
        engine: Any = figure.get_layout_engine()
        engine.set(w_pad=_BESIDE)
        axes = figure.subplots(len(units), 1, height_ratios=heights, squeeze=False)[:, 0]
        for ax, (unit, claims) in zip(axes, units.items(), strict=True):
            _draw_unit(ax, numbers[numbers["unit"] == unit], claims)
            ax.set_xlabel(f"Effect ({unit})" if unit else "Effect", labelpad=1)
        for verdict, (color, marker) in VERDICTS.items():
            if verdict in set(numbers["verdict"]):
                axes[0].add_line(Line2D([], [], color=color, marker=marker, ms=4.5, lw=1.3, label=verdict))
        note(axes[0], "line: 95 % interval over seeds, not corrected; grey: too small to matter")
        add_legend(figure, axes[0], width)
    return figure


@dataclass(frozen=True)
class _Claim:
    """The rows of a claim, its text, and how high both are in inches."""

    rows: pd.DataFrame
    text: str
    height: float


def _claims(rows: pd.DataFrame, width: float) -> list[_Claim]:
    found = []
    for name, own in rows.groupby("claim", sort=False):
        said = str(own["statement"].iloc[0]) if width >= _NARROW else str(name)
        text = filled(said, width * _TEXT / _TEXT_SIZE)
        found.append(_Claim(own, text, max(_LINE * (text.count("\n") + 1), _ROW * len(own)) + _BETWEEN))
    return found


def _draw_unit(ax: Axes, rows: pd.DataFrame, claims: list[_Claim]) -> None:
    limit = rows["smallest_effect"].abs().max()
    low = min(rows[["low", "effect"]].min(axis=None), -limit)
    high = max(rows[["high", "effect"]].max(axis=None), limit)
    room = 0.04 * (high - low) or 1.0
    top, places = 0.0, []
    for claim in claims:
        places.append(top + claim.height / 2)
        small = abs(claim.rows["smallest_effect"].iloc[0])
        edge = (claim.height - _BETWEEN) / 2
        ax.fill_betweenx([places[-1] - edge, places[-1] + edge], -small, small, color="0.9", lw=0)
        for i, row in enumerate(claim.rows.itertuples()):
            y = places[-1] + _ROW * (i - (len(claim.rows) - 1) / 2)
            color, marker = VERDICTS.get(row.verdict, _OTHER)
            ax.plot([row.low, row.high], [y, y], color=color, lw=1.3, solid_capstyle="butt")
            ax.plot(row.effect, y, marker=marker, color=color, ms=4.5, linestyle="none")
            ax.text(1.01, y, row.group, transform=ax.get_yaxis_transform(), va="center", fontsize=5.5, color="0.3")
        top += claim.height
    ax.axvline(0.0, color="0.4", lw=0.8, zorder=0.9)
    ax.set(xlim=(low - room, high + room), ylim=(top, 0))
    ax.set_yticks(places, [claim.text for claim in claims], fontsize=8 * _TEXT_SIZE)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.grid(False, axis="y")
    ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
