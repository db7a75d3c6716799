"""Quantities that need more than one number of one arm: two arms, two estimators, two losses, all measures of flatness.

As in :mod:`snn_probe.verdicts.quantities`, each gives one number per seed at the last epoch. Those that say how well two things
agree are 0 for equal ones and negative otherwise.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from snn_probe.verdicts.paired import PerSeed, paired, relative
from snn_probe.verdicts.quantities import (
    CURVATURE,
    Missing,
    Quantity,
    Tables,
    at_end,
    centroid,
    hessian_trace,
    landscape_rise,
    rows,
    top_eigenvalue,
)

ENERGY_MARGIN = 0.01  # of accuracy: how far below the common accuracy counts as having reached it
TET_MSE_WEIGHT = 0.05  # of the TET that landscapes are measured with, unless a column mse_weight says otherwise
_ROUNDING = 1e-12


def compared(quantity: Quantity, effect: Callable[[float, float], float]) -> Callable[..., PerSeed]:
    """The ``effect`` of the quantity of two arms, within each seed."""
    return lambda tables, first, second: paired(quantity(tables, first), quantity(tables, second), effect)


def lowest(quantity: Quantity) -> Callable[..., PerSeed]:
    """The lowest value of the quantity, by seed, over the arms that have it.

    An arm that is left out of a seed is told of, but does not take the seed's other arms with it: one network that
    breaks a rule breaks it.
    """

    def measure(tables: Tables, *arms: str) -> PerSeed:
        found = each(tables, arms, quantity)
        least: dict[int, float] = {}
        left_out: dict[int, str] = {}
        for arm, one in found.items():
            for seed, value in one.by_seed.items():
                least[seed] = min(value, least.get(seed, value))
            for seed, reason in one.left_out.items():
                left_out[seed] = "; ".join([*filter(None, [left_out.get(seed)]), f"{arm}: {reason}"])
        return PerSeed(least, left_out, ", ".join(found))

    return measure


def each(tables: Tables, arms: tuple[str, ...], *quantities: Quantity, least: int = 1) -> dict:
    """The quantity (several: a list of them) of the arms that have it; Missing if these are fewer than ``least``."""
    found, reason = {}, None
    for arm in arms:
        try:
            values = [quantity(tables, arm) for quantity in quantities]
            found[arm] = values if len(quantities) > 1 else values[0]
        except Missing as error:
            reason = reason or error
    if len(found) < least:
        raise Missing(f"{len(found)} arms of at least {least} have it: {reason}" if least > 1 else str(reason))
    return found


def timestep_epochs_saved(tables: Tables, *arms: str) -> PerSeed:
    """Relative difference of the sums of num_steps over the epochs of two arms: first minus second.

    Missing if metrics names one num_steps for all epochs of both: then it is that of the finished network.
    """
    both = {arm: rows(tables, "metrics", arm, ("num_steps",)) for arm in arms}
    if all(one["num_steps"].min() == one["num_steps"].max() for one in both.values()):
        raise Missing(f"table 'metrics' has one num_steps for all epochs of {' and '.join(map(repr, arms))}")

    def cost(arm: str) -> PerSeed:
        found = both[arm]
        final = found["epoch"].max()
        told = {
            int(seed): float(run["num_steps"].sum()) if len(run) == final else f"{len(run)} of {final} epochs are there"
            for seed, run in found.groupby("seed")
        }
        return PerSeed.of(told, arm)

    first, second = arms
    return paired(cost(first), cost(second), relative)


def energy_saving(tables: Tables, *arms: str) -> PerSeed:
    """Relative difference of the energies that two arms need for the same test accuracy: first minus second.

    The accuracy is the lower of the two at their full T, less ENERGY_MARGIN: both reach it. The energy of an arm is
    that of its timesteps 1..t, with t the first at which the mean of the first t logits has that accuracy.
    """
    first, second = (_accuracy_and_energy(tables, arm) for arm in arms)

    def measure(seed: int) -> float | str:
        if seed not in first or seed not in second:
            return "no accuracy or energy of some timestep of an arm"
        both = first[seed], second[seed]
        level = min(accuracy[-1] for accuracy, _ in both) - ENERGY_MARGIN - _ROUNDING
        return relative(*(float(spent[np.argmax(accuracy >= level)]) for accuracy, spent in both))

    return PerSeed.of({seed: measure(seed) for seed in {*first, *second}}, " - ".join(arms))


def _accuracy_and_energy(tables: Tables, arm: str) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """By seed: accuracy with the first t logits and energy of timesteps 1..t, for t = 1..T."""
    curves = rows(tables, "timesteps", arm, ("timestep", "accuracy"))
    energies = rows(tables, "activity", arm, ("layer", "timestep", "energy_pj"), layer="all")
    both = curves.merge(energies[["seed", "epoch", "timestep", "energy_pj"]], on=["seed", "epoch", "timestep"])
    both = both[both["epoch"] == both["epoch"].max()].sort_values("timestep")
    found = {}
    for seed, run in both.groupby("seed"):
        accuracy, spent = run["accuracy"].to_numpy(float), run["energy_pj"].to_numpy(float).cumsum()
        if np.isfinite([accuracy, spent]).all():
            found[int(seed)] = accuracy, spent
    return found


def batch_mean_agrees(tables: Tables, arm: str) -> PerSeed:
    """Minus the relative difference of the batch-mean and the exact Fisher trace at t = T: 0 if they are equal."""

    def last(end: pd.DataFrame) -> float:
        return float(end.sort_values("timestep")["trace"].iloc[-1])

    return paired(*_both_fishers(tables, arm, last), lambda a, b: -abs(relative(a, b)))


def batch_mean_centroid_agrees(tables: Tables, arm: str) -> PerSeed:
    """Minus the distance of the information centroids by the two estimators, in timesteps."""
    return paired(*_both_fishers(tables, arm, centroid), lambda a, b: -abs(a - b))


def curvature_agrees(tables: Tables, arm: str) -> PerSeed:
    """Minus the relative difference of the top eigenvalue and the curvature of the loss sampled along its eigenvector.

    The latter is that of the least-squares parabola through all finite points; for three points, their second
    difference.
    """
    columns = ("alpha", "loss", "eigenvalue")
    found = rows(tables, "eigenslice", arm, columns, objective="sdt", **CURVATURE)

    def measure(end: pd.DataFrame) -> float | str:
        if "converged" in end and not end["converged"].astype(bool).all():
            return "the eigenvalue did not converge"
        end = end[np.isfinite(end["loss"].astype(float)) & end.get("finite", pd.Series(True, end.index)).astype(bool)]
        if end["alpha"].nunique() < 3:
            return "fewer than 3 finite points"
        sampled = 2 * np.polyfit(end["alpha"].to_numpy(float), end["loss"].to_numpy(float), 2)[0]
        return -abs(relative(float(end["eigenvalue"].iloc[0]), float(sampled)))

    return at_end(found, measure, arm)


def lemma(tables: Tables, arm: str) -> PerSeed:
    """The least relative difference L_TET minus (1 - w) L_SDT of all finite points of the slices, w TET's mse_weight.

    With w = 0 this is the lemma of TET (Jensen); with w > 0 what is left of it, as the MSE is not negative.
    """
    found = rows(tables, "landscape", arm, ("objective", "alpha", "beta", "loss"))
    if absent := {"sdt", "tet"} - set(found["objective"]):
        raise Missing(f"table 'landscape' has no objective {sorted(absent)[0]!r} of arm {arm!r}")
    points = [name for name in ("directions", "alpha", "beta") if name in found]

    def measure(end: pd.DataFrame) -> float | str:
        by_point = [end[end["objective"] == name].set_index(points)["loss"].astype(float) for name in ("sdt", "tet")]
        losses = pd.concat(by_point, axis=1, join="inner").to_numpy()
        losses = losses[np.isfinite(losses).all(1)]
        weight = float(end["mse_weight"].iloc[0]) if "mse_weight" in end else TET_MSE_WEIGHT
        gaps = [relative(tet, (1 - weight) * sdt) if sdt or tet else 0.0 for sdt, tet in losses]
        return min(gaps, default=float("nan"))

    return at_end(found, measure, arm)


def flatness_ranks_agree(tables: Tables, *arms: str) -> PerSeed:
    """Spearman's rank correlation over three or more arms, mean over the three pairs of flatness measures."""
    found = each(tables, arms, top_eigenvalue, hessian_trace, landscape_rise, least=3)
    seeds = {seed for three in found.values() for one in three for seed in (*one.by_seed, *one.left_out)}

    def measure(seed: int) -> float | str:
        if any(seed not in one.by_seed for three in found.values() for one in three):
            return "a measure of an arm is missing"
        ranks = pd.DataFrame([[one.by_seed[seed] for one in three] for three in found.values()]).rank()
        if (ranks.min() == ranks.max()).any():
            return "a measure is the same for all arms"
        correlations = np.corrcoef(ranks.to_numpy().T)
        return float(correlations[np.triu_indices(3, 1)].mean())

    return PerSeed.of({seed: measure(seed) for seed in seeds}, ", ".join(found))


def _both_fishers(tables: Tables, arm: str, measure: Callable[[pd.DataFrame], float]) -> tuple[PerSeed, PerSeed]:
    """``measure`` of the exact and of the batch-mean Fisher table at the last epoch that both have."""
    columns = ("layer", "timestep", "trace")
    exact, batch = (rows(tables, name, arm, columns, layer="all") for name in ("fisher", "fisher_batch_mean"))
    common = set(exact["epoch"]) & set(batch["epoch"])
    if not common:
        raise Missing(f"tables 'fisher' and 'fisher_batch_mean' have no epoch in common of arm {arm!r}")
    last = max(common)
    return at_end(exact[exact["epoch"] <= last], measure, arm), at_end(batch[batch["epoch"] <= last], measure, arm)
