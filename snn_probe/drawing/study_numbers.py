"""What each figure of a study plots: from the study's tables to one tidy table of numbers, means over seeds.

A table of a study has the columns of its probe, ``arm``, ``group`` and the identifying columns of ``combine``. What is
plotted has ``group``, ``arm``, what tells lines and panels apart, and ``mean``, ``low``, ``high`` (the lowest and the
highest of the seeds) and ``n_seeds``. A mean over a seed whose value is not finite is NaN: a gap, not a smaller mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from snn_probe.drawing.activity import energy_unit
from snn_probe.drawing.curvature import FLOOR
from snn_probe.results import IDENTIFYING
from snn_probe.tables.centroid import information_centroid

Tables = Mapping[str, pd.DataFrame]
RUN = ("group", "arm", "seed")
VARIANTS = ("probe", "operator", "forward", "labels", "readout", "group_size")  # settings, where a table states them
_SHOWN_EPOCHS = 5  # most epochs that are drawn as lines of their own
_PLANES = ["group", "arm", "objective", "alpha", "beta", "loss", "accuracy", "finite", "seed", "epoch"]


def over_seeds(rows: pd.DataFrame, by: Sequence[str], value: str, *, within: Sequence[str] = ()) -> pd.DataFrame:
    """Mean, lowest and highest of ``value`` over the seeds at each value of the columns ``by``, in order of appearance.

    ``within`` are columns over which the mean is taken for each seed first. Raises ValueError when a seed has a row
    twice beyond that, since its mean would mix what cannot be told apart.
    """
    keys = [*by, "seed"]
    if (again := rows.duplicated([*keys, *within])).any():
        place = ", ".join(f"{name} {rows.loc[again, name].iloc[0]}" for name in keys)
        raise ValueError(f"{value} at {place} occurs twice; keep one row of each seed, or tell them apart in a column")
    values = rows.assign(**{value: rows[value].astype(float).replace([np.inf, -np.inf], np.nan)})
    grouping = {"sort": False, "dropna": False}
    each = values.groupby(keys, **grouping)[value].agg(lambda found: found.mean(skipna=False)).reset_index()
    found = each.groupby(list(by), **grouping)[value]
    whole = found.agg(lambda seeds: seeds.notna().all())
    table = found.agg(["mean", "min", "max", "size"]).set_axis(["mean", "low", "high", "n_seeds"], axis=1)
    table.loc[~whole.astype(bool), ["mean", "low", "high"]] = np.nan
    return table.reset_index()


def sorted_by(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """The rows by group and arm, in their order of appearance, and then rising in ``column``."""
    ranks = pd.DataFrame({name: pd.factorize(rows[name])[0] for name in ("group", "arm")}, index=rows.index)
    order = ranks.assign(value=rows[column]).sort_values(["group", "arm", "value"], kind="stable").index
    return rows.loc[order]


def at_the_end(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the last epoch that each run was measured at."""
    if "epoch" not in table or table["epoch"].isna().all():
        return table
    return table[table["epoch"] == table.groupby(list(RUN), dropna=False)["epoch"].transform("max")]


def variant(table: pd.DataFrame) -> pd.DataFrame:
    """The table with a column ``variant`` that names, in words, settings in which its rows differ; "" where none do."""
    differ = [name for name in VARIANTS if name in table and len(table[name].unique()) > 1]
    said = table[differ].astype(str).agg(", ".join, axis=1) if differ else ""
    return table.assign(variant=said)


def learning_curves(tables: Tables) -> pd.DataFrame:
    """Accuracy (percent) and loss of test and training over epochs, and the gap train - test in accuracy."""
    rows = tables["metrics"].copy()
    held = "test" if "test_accuracy" in rows and rows["test_accuracy"].notna().any() else "validation"
    rows["gap"] = 100 * (rows["train_accuracy"] - rows[f"{held}_accuracy"])
    found = []
    for split in (held, "train"):
        rows[f"{split}_accuracy"] *= 100
        for quantity in ("accuracy", "loss"):
            found.append(over_seeds(rows, ["group", "arm", "epoch"], f"{split}_{quantity}"))
            found[-1] = found[-1].assign(quantity=quantity, split=split)
    found.append(over_seeds(rows, ["group", "arm", "epoch"], "gap").assign(quantity="gap", split=held))
    return pd.concat(found, ignore_index=True)


def fisher(tables: Tables, name: str = "fisher") -> pd.DataFrame:
    """The Fisher trace of all weights against t at each epoch measured (of more than 5, 5 evenly spread)."""
    rows = variant(tables[name])
    rows = rows[rows["layer"] == "all"]
    epochs = np.sort(rows["epoch"].unique())
    chosen = epochs[np.linspace(0, len(epochs) - 1, min(len(epochs), _SHOWN_EPOCHS)).round().astype(int)]
    rows = sorted_by(rows[rows["epoch"].isin(chosen)], "epoch")
    by = ["group", "arm", "variant", *[name for name in ("labels",) if name in rows], "epoch", "timestep"]
    return over_seeds(rows, by, "trace")


def centroids(tables: Tables) -> pd.DataFrame:
    """The information centroid (of all weights) at each epoch measured."""
    found = []
    rows = variant(tables["fisher"])
    for keys, own in rows.groupby(["group", "arm", "variant"], sort=False):
        table = own.drop(columns=[name for name in own if name not in (*IDENTIFYING, "layer", "timestep", "trace")])
        points: Any = information_centroid(table)
        found.append(points.assign(**dict(zip(("group", "arm", "variant"), keys, strict=True))))
    rows = sorted_by(pd.concat(found, ignore_index=True), "epoch")
    return over_seeds(rows, ["group", "arm", "variant", "epoch"], "centroid")


def lines(tables: Tables, name: str = "landscape") -> pd.DataFrame:
    """Loss along a line at the end of training, mean over directions and seeds."""
    rows = at_the_end(tables[name])
    rows = rows.assign(loss=rows["loss"].where(rows["finite"].astype(bool))) if "finite" in rows else rows
    rows = sorted_by(rows, "alpha")
    within = [column for column in ("directions", "beta") if column in rows]
    return over_seeds(rows, ["group", "arm", "objective", "alpha"], "loss", within=within)


def planes(tables: Tables) -> pd.DataFrame:
    """The loss on the plane at the end of training, of the lowest seed of each arm: a single network, no mean."""
    rows = at_the_end(tables["plane"])
    rows = rows[rows["seed"] == rows.groupby(["group", "arm"], dropna=False)["seed"].transform("min")]
    return rows[[name for name in _PLANES if name in rows]].reset_index(drop=True)


def eigenvalues(tables: Tables) -> pd.DataFrame:
    """Eigenvalues at the end of training by rank; ``converged`` where those of all seeds are."""
    rows = variant(at_the_end(tables["eigenvalues"]))
    by = ["group", "arm", "variant", "rank"]
    whole = rows.groupby(by, sort=False)["converged"].all().reset_index()
    return over_seeds(rows, by, "eigenvalue").merge(whole, on=by)


def traces(tables: Tables) -> pd.DataFrame:
    """The Hessian trace at every epoch measured."""
    rows = sorted_by(variant(tables["hessian_trace"]), "epoch")
    return over_seeds(rows, ["group", "arm", "variant", "epoch"], "trace")


def densities(tables: Tables) -> pd.DataFrame:
    """The spectral density of every seed at the end of training: no mean, since the grids differ. NaN: a gap."""
    rows = sorted_by(variant(at_the_end(tables["density"])), "eigenvalue")
    rows["density"] = rows["density"].where(rows["density"] > FLOOR * rows["density"].max())
    lost = rows["density"].isna()
    again = lost.groupby([rows[name] for name in ("group", "arm", "variant", "seed")]).shift(fill_value=True)
    return rows.loc[~(lost & again), ["group", "arm", "variant", "seed", "eigenvalue", "density"]].reset_index(
        drop=True
    )


def gradients(tables: Tables) -> pd.DataFrame:
    """Gradient norms at the end of training per layer and timestep; ``path``: all, or the one through time cut."""
    rows = at_the_end(tables["gradients"])
    by = ["group", "arm", "layer", "timestep"]
    parts = {"all": "norm", "cut": "norm_spatial"}
    found = [over_seeds(rows, by, column).assign(path=path) for path, column in parts.items() if column in rows]
    return pd.concat(found, ignore_index=True)


def timesteps(tables: Tables) -> pd.DataFrame:
    """Accuracy (percent) of the mean of the first t logits at the end of training; ``num_steps``: the T of training."""
    rows = at_the_end(tables["timesteps"])
    rows = rows.assign(accuracy=100 * rows["accuracy"])
    return over_seeds(rows, ["group", "arm", "num_steps", "timestep"], "accuracy")


def firing_rates(tables: Tables) -> pd.DataFrame:
    """Firing rate per spiking layer (spikes per neuron and timestep) at the end of training, mean over timesteps."""
    rows = at_the_end(tables["activity"])
    rows = rows[rows["firing_rate"].notna() & (rows["layer"] != "all")]
    return over_seeds(rows, ["group", "arm", "layer"], "firing_rate", within=["timestep"])


def energies(tables: Tables) -> pd.DataFrame:
    """Energy of one example, all timesteps, per synaptic layer and of all, at the end of training; in ``unit``."""
    rows = at_the_end(tables["activity"])
    rows = rows[rows["energy_pj"].notna()]
    sums = rows.groupby([*RUN, "layer"], sort=False, dropna=False)["energy_pj"].sum().reset_index()
    scale, unit = energy_unit(sums["energy_pj"].max())
    return over_seeds(sums.assign(energy=sums["energy_pj"] / scale), ["group", "arm", "layer"], "energy").assign(
        unit=unit
    )
