"""The information centroid: around which timestep the Fisher information of a network is gathered."""

from __future__ import annotations

import numpy as np
import pandas as pd

from snn_probe.results import IDENTIFYING


def information_centroid(table: pd.DataFrame, *, layer: str = "all") -> float | pd.DataFrame:
    """IC = sum_t t I_t / sum_t I_t, with I_t the Fisher trace of timestep t = 1..T, so that 1 <= IC <= T.

    ``table`` is that of a ``fisher_trace`` result, which gives a float; or that of ``combine(results)``, which gives
    a DataFrame with one row per checkpoint: its identifying columns, ``centroid`` and ``stderr``.

    ``stderr`` follows from the standard errors s_t of the traces to first order: the root of
    sum_t ((t - IC) / sum I)^2 s_t^2. This takes the timesteps as independent; they are estimated on the same
    examples, so it is a guide and not a bound. Traces that are all zero have no centroid: NaN.

    Raises ValueError when the table lacks the columns or the layer, or when the timesteps of a checkpoint are not
    1..T, each once. Kim et al., AAAI 2023 (arXiv 2211.14406): IC falls as training proceeds.
    """
    rows = layer_rows(table, layer)
    keys = [name for name in IDENTIFYING if name in rows]
    if not keys:
        return _centroid(rows)[0]
    found = []
    for _, group in rows.groupby(keys, dropna=False, sort=False):
        centroid, stderr = _centroid(group)
        found.append(group[keys].iloc[[0]].assign(centroid=centroid, stderr=stderr))
    return pd.concat(found, ignore_index=True)


def layer_rows(table: pd.DataFrame, layer: str) -> pd.DataFrame:
    """The rows of one layer of a Fisher table.

    ValueError when it is no such table, has no such layer, or has a timestep of one checkpoint twice.
    """
    needed = ("layer", "timestep", "trace")
    if missing := [name for name in needed if name not in table]:
        raise ValueError(
            f"the table has no column {missing[0]!r}; give the table of a fisher_trace result, or combine(results)"
        )
    rows = table[table["layer"] == layer]
    if rows.empty:
        present = ", ".join(map(str, table["layer"].unique())) or "none"
        raise ValueError(f"layer {layer!r} is not in the table; choose one of its layers: {present}")
    keys = [name for name in IDENTIFYING if name in rows]
    twice = rows[rows.duplicated([*keys, "timestep"])]
    if not twice.empty:
        raise ValueError(
            f"timestep {twice['timestep'].iloc[0]} occurs twice for one checkpoint; give the table of one result, or "
            "combine(results) of different checkpoints"
        )
    return rows


def _centroid(rows: pd.DataFrame) -> tuple[float, float]:
    """Centroid and standard error of one checkpoint's traces."""
    timesteps = rows["timestep"].to_numpy(dtype=float)
    if sorted(timesteps) != list(range(1, len(timesteps) + 1)):
        raise ValueError(
            f"the timesteps of one checkpoint are {rows['timestep'].tolist()}, but a centroid needs all of 1..T; "
            "measure the missing ones"
        )
    trace = rows["trace"].to_numpy(dtype=float)
    errors = rows["stderr"].to_numpy(dtype=float) if "stderr" in rows else np.full(len(rows), np.nan)
    total = trace.sum()
    if total == 0:
        return float("nan"), float("nan")
    centroid = (timesteps * trace).sum() / total
    stderr = np.linalg.norm((timesteps - centroid) / total * errors)
    return float(centroid), float(stderr)
