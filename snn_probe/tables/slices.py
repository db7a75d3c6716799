"""Loss slices read from tables: each as its axes and grids of numbers. Nothing here needs torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from snn_probe.results import Result, combine

MEASURED = ("alpha", "beta", "loss", "accuracy", "finite")  # every other column tells slices apart


@dataclass(frozen=True)
class Slice:
    """What tells a slice apart, its sorted alphas (A,) and betas (B,), and loss and accuracy (A, B) on that grid.

    A loss that looks like a number though its row says ``finite`` False is NaN here, as is its accuracy; infinities stay.
    """

    keys: dict[str, object]
    alphas: np.ndarray
    betas: np.ndarray
    loss: np.ndarray
    accuracy: np.ndarray


def slices(table: pd.DataFrame) -> list[Slice]:
    """The slices of a table of ``loss_slice`` results, in order of appearance.

    All columns but the measured ones tell them apart: the objective, and what ``combine`` or :func:`combine_slices`
    added. Raises ValueError when a column is missing, a grid is incomplete, or a point occurs twice.
    """
    if missing := [name for name in ("objective", "alpha", "beta", "loss") if name not in table]:
        raise ValueError(f"the table has no column {missing[0]!r}; give the table of a loss_slice result")
    if table.empty:
        raise ValueError("the table is empty; give the table of a loss_slice result")
    keys = [name for name in table.columns if name not in MEASURED]
    groups = table.groupby(keys, dropna=False, sort=False)
    return [_slice(dict(zip(keys, values, strict=True)), rows) for values, rows in groups]


def combine_slices(results: Iterable[Result]) -> pd.DataFrame:
    """``combine(results)`` of loss slices with a column ``directions`` that says which ones each row lies on."""
    said = (
        Result(r.probe, r.table.assign(directions=str(r.settings.get("directions"))), r.settings, r.source)
        for r in results
    )
    return combine(said)


def table_of(results: Iterable[Result]) -> pd.DataFrame:
    """The combined table of results of one probe; of loss slices with the column that tells their directions apart."""
    results = list(results)
    return combine_slices(results) if results and results[0].probe == "loss_slice" else combine(results)


def _slice(keys: dict[str, object], rows: pd.DataFrame) -> Slice:
    if rows.duplicated(["alpha", "beta"]).any():
        raise ValueError(
            "a point of a slice occurs twice; tell slices along several directions apart with combine_slices(results)"
        )
    alphas, betas = (np.unique(rows[name].to_numpy(dtype=float)) for name in ("alpha", "beta"))
    if len(rows) != len(alphas) * len(betas):
        raise ValueError(
            f"a slice has {len(rows)} of its {len(alphas) * len(betas)} points; resume it to measure the others"
        )
    at = np.searchsorted(alphas, rows["alpha"]), np.searchsorted(betas, rows["beta"])
    loss, accuracy = np.full((2, len(alphas), len(betas)), np.nan)
    loss[at] = rows["loss"]
    if "accuracy" in rows:
        accuracy[at] = rows["accuracy"]
    if "finite" in rows:
        lost = ~rows["finite"].to_numpy(dtype=bool)
        doubtful = lost & np.isfinite(rows["loss"].to_numpy(dtype=float))
        loss[at[0][doubtful], at[1][doubtful]] = np.nan
        accuracy[at[0][lost], at[1][lost]] = np.nan
    return Slice(keys, alphas, betas, loss, accuracy)
