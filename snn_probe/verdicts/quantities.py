"""What claims compare: one number per seed of an arm, read from a study's tables.

Tables are tidy DataFrames by name, see :mod:`snn_probe.claims`; a quantity is a function (tables, arm) -> PerSeed. All
but the information centroid's changes are taken at the arm's last epoch; a seed that did not get there is left out with
the reason, as is one with a number that is not finite or not converged. ``Missing`` says that a table, an arm or a
column is not there at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from snn_probe.tables.centroid import information_centroid
from snn_probe.tables.flatness import flatness
from snn_probe.verdicts.paired import PerSeed

Tables = Mapping[str, pd.DataFrame]
Quantity = Callable[[Tables, str], PerSeed]

RADIUS = 0.5  # where the rise of a landscape is read; filter-normalized directions: half of each filter's length

COORDINATES = {  # what tells the rows of one network apart
    "metrics": (), "fisher": ("layer", "timestep"), "fisher_batch_mean": ("layer", "timestep"),
    "eigenvalues": ("rank",), "hessian_trace": (), "landscape": ("directions", "objective", "alpha", "beta"),
    "eigenslice": ("alpha",), "gradients": ("layer", "timestep"), "timesteps": ("timestep",),
    "activity": ("layer", "timestep"),
}  # fmt: skip
CURVATURE = {"operator": "hessian", "forward": "spiking"}  # which rows count, if a table has several kinds


class Missing(Exception):
    """A claim's table, arm, column or epochs are not there; the message says which."""


def rows(tables: Tables, name: str, arm: str, columns: tuple[str, ...], **only: str) -> pd.DataFrame:
    """The rows of an arm in a table, those with the values ``only`` in columns that exist.

    Raises Missing if there are none or a column lacks, ValueError if a seed has a measurement twice.
    """
    if name not in tables or tables[name].empty:
        raise Missing(f"there is no table {name!r}")
    found = tables[name][tables[name]["arm"] == arm]
    if lacking := [column for column in ("epoch", *columns) if column not in found]:
        raise Missing(f"table {name!r} has no column {lacking[0]!r}")
    if found.empty:
        raise Missing(f"table {name!r} has no arm {arm!r}")
    for column, value in only.items():
        if column in found:
            found = found[found[column] == value]
            if found.empty:
                raise Missing(f"table {name!r} has no {column} {value!r} of arm {arm!r}")
    keys = ["seed", "epoch", *(column for column in COORDINATES[name] if column in found)]
    if (twice := found.duplicated(keys)).any():
        where = ", ".join(f"{key} {value}" for key, value in found.loc[twice, keys].iloc[0].items())
        raise ValueError(f"table {name!r} of arm {arm!r} has {where} twice; give each measurement once")
    return found


def at_end(found: pd.DataFrame, measure: Callable[[pd.DataFrame], float | str], arm: str) -> PerSeed:
    """``measure`` of each seed's rows at the arm's last epoch: a number, or the reason why there is none."""
    final = found["epoch"].max()

    def one(run: pd.DataFrame) -> float | str:
        end = run[run["epoch"] == final]
        return measure(end) if len(end) else f"ends at epoch {run['epoch'].max()} of {final}"

    return PerSeed.of({int(seed): one(run) for seed, run in found.groupby("seed")}, arm)


def accuracy(tables: Tables, arm: str) -> PerSeed:
    """Test accuracy in percent."""
    found = rows(tables, "metrics", arm, ("test_accuracy",))
    return at_end(found, lambda end: 100 * float(end["test_accuracy"].iloc[0]), arm)


def generalisation_gap(tables: Tables, arm: str) -> PerSeed:
    """Training accuracy (mean over the last epoch, in train mode) minus test accuracy, in points."""
    found = rows(tables, "metrics", arm, ("train_accuracy", "test_accuracy"))
    return at_end(found, lambda end: 100 * float((end["train_accuracy"] - end["test_accuracy"]).iloc[0]), arm)


def top_eigenvalue(tables: Tables, arm: str) -> PerSeed:
    """The largest eigenvalue of the Hessian through surrogate gradients; seeds where it did not converge left out."""

    def measure(end: pd.DataFrame) -> float | str:
        first = end.sort_values("rank").iloc[0]
        return float(first["eigenvalue"]) if bool(first["converged"]) else "the eigenvalue did not converge"

    return at_end(rows(tables, "eigenvalues", arm, ("rank", "eigenvalue", "converged"), **CURVATURE), measure, arm)


def hessian_trace(tables: Tables, arm: str) -> PerSeed:
    """The trace of the Hessian through surrogate gradients."""
    found = rows(tables, "hessian_trace", arm, ("trace",), **CURVATURE)
    return at_end(found, lambda end: float(end["trace"].iloc[0]), arm)


def landscape_rise(tables: Tables, arm: str) -> PerSeed:
    """Mean rise of the SDT loss at distance RADIUS (at most the grid's reach) along the random directions."""
    found = rows(tables, "landscape", arm, ("objective", "alpha", "beta", "loss"), objective="sdt")
    names = [n for n in ("seed", "directions", "objective", "alpha", "beta", "loss", "finite") if n in found]

    def measure(end: pd.DataFrame) -> float | str:
        axes = [end[axis] for axis in ("alpha", "beta") if end[axis].min() < end[axis].max()]
        reach = min((min(-axis.min(), axis.max()) for axis in axes), default=0.0)
        if reach <= 0:
            return "the slice has no points on both sides of 0"
        try:
            rise = flatness(end[names], level=1.0, radius=float(min(RADIUS, reach)))["rise"]
        except ValueError as error:  # an unfinished grid, or one without (0, 0)
            return str(error)
        return float(rise.mean(skipna=False))

    return at_end(found, measure, arm)


def centroid_fall(tables: Tables, arm: str) -> PerSeed:
    """By how many timesteps the information centroid falls over the measured epochs, on its least-squares line."""
    found = rows(tables, "fisher", arm, ("layer", "timestep", "trace"), layer="all")
    epochs = sorted(found["epoch"].unique())
    if len(epochs) < 2:
        raise Missing(f"table 'fisher' has one epoch of arm {arm!r}")

    def one(run: pd.DataFrame) -> float | str:
        if set(run["epoch"]) != set(epochs):
            return f"measured at {run['epoch'].nunique()} of {len(epochs)} epochs"
        values = [centroid(end) for _, end in run.groupby("epoch")]
        if not np.isfinite(values).all():
            return "an epoch has no centroid"
        return -float(np.polyfit(np.array(epochs, float), values, 1)[0] * (epochs[-1] - epochs[0]))

    return PerSeed.of({int(seed): one(run) for seed, run in found.groupby("seed")}, arm)


def centroid(end: pd.DataFrame) -> float:
    """The information centroid of one network's rows."""
    return float(information_centroid(end[["layer", "timestep", "trace"]]))


def first_share(tables: Tables, arm: str) -> PerSeed:
    """Share of the first timestep in the sum of the Fisher traces."""
    found = rows(tables, "fisher", arm, ("layer", "timestep", "trace"), layer="all")

    def measure(end: pd.DataFrame) -> float | str:
        total = float(end["trace"].sum())
        return float(end.loc[end["timestep"] == 1, "trace"].sum()) / total if total > 0 else "all traces are 0"

    return at_end(found, measure, arm)


def gradient_ratio(tables: Tables, arm: str) -> PerSeed:
    """Temporal gradient norm at the first timestep over that at the last, geometric mean over layers."""
    found = rows(tables, "gradients", arm, ("layer", "timestep", "norm"))

    def measure(end: pd.DataFrame) -> float | str:
        times = end["timestep"]
        norms = [end[times == t].set_index("layer")["norm"].astype(float) for t in (times.min(), times.max())]
        ratios = norms[0] / norms[1]
        positive = np.isfinite(ratios).all() and (ratios > 0).all()
        return float(np.exp(np.log(ratios).mean())) if positive else "a layer's gradient is zero or not finite"

    return at_end(found, measure, arm)


def accuracy_kept(tables: Tables, arm: str) -> PerSeed:
    """Mean accuracy at all measured T but the one of training, minus that at the one of training, in points."""
    found = rows(tables, "timesteps", arm, ("timestep", "accuracy", "num_steps"))

    def measure(end: pd.DataFrame) -> float | str:
        own = end["timestep"] == end["num_steps"]
        if own.sum() != 1 or own.all():
            return f"measured at T {end['timestep'].tolist()}, trained at {end['num_steps'].iloc[0]}"
        return 100 * float(end.loc[~own, "accuracy"].mean(skipna=False) - end.loc[own, "accuracy"].iloc[0])

    return at_end(found, measure, arm)
