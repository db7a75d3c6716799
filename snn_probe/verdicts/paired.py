"""Decisions from few seeds: effects paired by seed, t intervals, Holm's correction, a verdict with a promised rate.

An effect has its sign so that positive is what a claim says, and a smallest size m > 0 that matters, named before
anything is measured. Per seed there is one number (two arms: their difference within the seed); its truth, delta, is
the mean over all seeds there could be, for the data sets and examples used: those are the same in all seeds, so an
interval says nothing about other examples. Each claim follows one rule:

more    supported if delta > 0 is sure and the effect is at least m; contradicted if delta < m is sure.
kept    supported if delta > -m is sure (not worse by m); contradicted if delta < -m is sure.
always  of every network, and not of a mean: supported if no seed is below m (and there are two or more), contradicted
        by one that is. Nothing is tested; the effect is that of the lowest seed; m < 0 is an allowance.

Sure: the one-sided paired t test, corrected by Holm's step-down over all tested rows of a study, is at most LEVEL =
2.5 %; uncorrected, this is where the 95 % interval ends. All else is undecided. Per study, whatever the dependence of
the rows, and exactly so for normal differences: with a chance of at most 2.5 % any row with delta <= 0 (kept: <= -m)
is called supported; with at most 2.5 % any row with delta >= m (kept: >= -m) is called contradicted. So any wrong
verdict at all: 5 %. The reason of a contradicted row says "reversed" if delta < 0 is sure in the same sense.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy.special import stdtr, stdtrit

LEVEL = 0.025  # one-sided, so that both directions together have 5 %
RULES = ("more", "kept", "always")
_ROUNDING = 1e-9  # share of the largest value below which a spread over seeds is rounding
_TINY = 1e-12


@dataclass(frozen=True)
class PerSeed:
    """One finite number per seed, why other seeds are left out, and which arms were looked at."""

    by_seed: Mapping[int, float]
    left_out: Mapping[int, str] = field(default_factory=dict)
    arms: str = ""

    @classmethod
    def of(cls, found: Mapping[int, float | str], arms: str = "") -> PerSeed:
        """From a number or, where there is none, the reason per seed; a number that is not finite is left out."""
        told = {seed: value if isinstance(value, str) else _doubt(value) for seed, value in sorted(found.items())}
        values = {seed: float(found[seed]) for seed, doubt in told.items() if not doubt}
        return cls(values, {seed: doubt for seed, doubt in told.items() if doubt}, arms)


def paired(first: PerSeed, second: PerSeed, effect: Callable[[float, float], float]) -> PerSeed:
    """``effect(first, second)`` of the seeds that both have; the others are left out, with the reason."""
    found: dict[int, float | str] = {}
    for seed in {*first.by_seed, *first.left_out, *second.by_seed, *second.left_out}:
        if seed in first.by_seed and seed in second.by_seed:
            found[seed] = effect(first.by_seed[seed], second.by_seed[seed])
        else:
            lacking = [side for side in (first, second) if seed not in side.by_seed]
            found[seed] = "; ".join(f"{s.arms}: {s.left_out.get(seed, 'no such seed')}" for s in lacking)
    return PerSeed.of(found, f"{first.arms} - {second.arms}")


def difference(first: float, second: float) -> float:
    """first - second."""
    return first - second


def relative(first: float, second: float) -> float:
    """2 (first - second) / (|first| + |second|), from -2 to 2; NaN if both are 0.

    For close numbers of one sign that is the logarithm of their ratio; it exists for any signs, and no seed with a tiny
    denominator can outweigh the others.
    """
    size = abs(first) + abs(second)
    return 2 * (first - second) / size if size else math.nan


@dataclass(frozen=True)
class Estimate:
    """Values of one quantity, one per seed."""

    values: tuple[float, ...]

    @property
    def n(self) -> int:
        return len(self.values)

    @cached_property
    def mean(self) -> float:
        return math.fsum(self.values) / self.n if self.values else math.nan

    @cached_property
    def stderr(self) -> float:
        """Of the mean; 0 where all seeds agree to rounding, NaN below two seeds."""
        if self.n < 2:
            return math.nan
        variance = math.fsum((value - self.mean) ** 2 for value in self.values) / (self.n - 1)
        rounding = _ROUNDING * max(map(abs, self.values)) + _TINY
        return math.sqrt(variance / self.n) if variance > rounding**2 else 0.0

    def interval(self) -> tuple[float, float]:
        """The 95 % t interval of the mean; NaN below two seeds and where all seeds agree."""
        if not self.stderr > 0:
            return math.nan, math.nan
        reach = float(stdtrit(self.n - 1, 1 - LEVEL)) * self.stderr
        return self.mean - reach, self.mean + reach

    def p_above(self, bound: float) -> float:
        """One-sided p value of "the truth is at most ``bound``": small if it is surely above."""
        return self._p(self.mean - bound)

    def p_below(self, bound: float) -> float:
        """One-sided p value of "the truth is at least ``bound``": small if it is surely below."""
        return self._p(bound - self.mean)

    def _p(self, distance: float) -> float:
        """Of a mean so far on the right side. Where all seeds agree a t test has nothing to go by: the sign test."""
        if self.n < 2:
            return math.nan
        if self.stderr == 0:
            return 0.5**self.n if distance > _TINY else 1.0
        return float(stdtr(self.n - 1, -distance / self.stderr))


@dataclass(frozen=True)
class Decision:
    """Verdict of one row and the reason in words; p values one-sided, NaN where nothing is tested.

    p: of "no effect as claimed" (small: there is one); p_contrary: of "an effect of at least the smallest size" (small:
    there is none).
    """

    verdict: str
    why: str
    p: float = math.nan
    p_corrected: float = math.nan
    p_contrary: float = math.nan
    p_contrary_corrected: float = math.nan


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """p values adjusted by Holm's step-down (Scand. J. Statist. 6, 1979); NaN stays NaN and does not count.

    Rejecting where the adjusted value is at most a level keeps the chance of any false rejection at that level.
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")[: int(np.isfinite(p).sum())]  # NaN is sorted last
    adjusted = np.full(len(p), np.nan)
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0) if len(order) else steps
    return adjusted


def decide(rows: Sequence[tuple[Estimate, str, float]]) -> list[Decision]:
    """One decision per row (estimate, rule, smallest effect m) of a study, corrected over all of them.

    Raises ValueError for an unknown rule and, but for "always", an m that is not positive.
    """
    for _, rule, smallest in rows:
        if rule not in RULES:
            raise ValueError(f"decide: rule is {rule!r}; choose one of {', '.join(RULES)}")
        if rule != "always" and not 0 < smallest < math.inf:
            raise ValueError(f"decide: the smallest effect is {smallest!r}; give a positive number")
    p = np.array([_tested(row) for row in rows]).reshape(len(rows), 3)
    corrected = np.stack([holm(column) for column in p.T], axis=1)
    found = []
    for row, alone, together in zip(rows, p.tolist(), corrected.tolist(), strict=True):
        verdict, why = _always(row) if row[1] == "always" else _verdict(row, alone, together)
        found.append(Decision(verdict, why, alone[0], together[0], alone[1], together[1]))
    return found


def _tested(row: tuple[Estimate, str, float]) -> tuple[float, float, float]:
    """p values of: not as claimed; at least what matters; not reversed."""
    estimate, rule, smallest = row
    if rule == "always":
        return math.nan, math.nan, math.nan
    nothing, enough = (0.0, smallest) if rule == "more" else (-smallest, -smallest)
    return estimate.p_above(nothing), estimate.p_below(enough), estimate.p_below(nothing)


def _verdict(row: tuple[Estimate, str, float], alone: list[float], together: list[float]) -> tuple[str, str]:
    """Verdict and reason from the p values of :func:`_tested` before and after correction."""
    estimate, rule, smallest = row
    if estimate.n < 2:
        return "undecided", f"{estimate.n} seed{'s' * (estimate.n != 1)}: no interval"
    large_enough = rule == "kept" or estimate.mean >= smallest
    agree = "; all seeds give the same number: sign test" if estimate.stderr == 0 else ""
    there, not_there, reverse = (p <= LEVEL for p in together)
    if there and large_enough:
        return "supported", agree.removeprefix("; ")
    if not_there and rule == "kept":
        return "contradicted", "worse by more than that" + agree
    if not_there:
        smaller = "an effect, but smaller than matters" if there else "no effect of that size"
        return "contradicted", ("reversed" if reverse else smaller) + agree
    if there:
        return "undecided", "an effect, perhaps smaller than matters" + agree
    alone_verdict = "supported" if alone[0] <= LEVEL and large_enough else "contradicted" if alone[1] <= LEVEL else ""
    return "undecided", (alone_verdict and f"{alone_verdict} if it were the only claim") + agree


def _always(row: tuple[Estimate, str, float]) -> tuple[str, str]:
    estimate, _, smallest = row
    below = sum(value < smallest for value in estimate.values)
    if below:
        return "contradicted", f"fails in {below} of {estimate.n} seeds"
    if estimate.n < 2:
        return "undecided", f"{estimate.n} seed{'s' * (estimate.n != 1)}: no rule"
    return "supported", f"holds in all {estimate.n} seeds"


def _doubt(value: float) -> str:
    return "" if math.isfinite(value) else "not finite"
