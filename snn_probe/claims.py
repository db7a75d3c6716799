"""The papers' claims as small functions of a study's tables, judged together.

``tables`` are DataFrames by name: "metrics" (metrics.csv of all runs, num_steps by epoch) and the combined tables of
probes, "fisher", "fisher_batch_mean", "eigenvalues", "hessian_trace", "landscape" (with a column directions),
"eigenslice" (a loss slice along the top eigenvector, with a column eigenvalue), "gradients", "timesteps", "activity".
Each has the columns of its probe and arm ("sdt", "tet", "trt", "trt-l2": TRT with decay 0, plain L2 of the same
strength, "tit", "switch"), group (which networks belong together, such as "150 examples"; or ""), seed, epoch and
num_steps.

How a verdict is reached, and with which rates, is said in :mod:`snn_probe.verdicts.paired`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from snn_probe.verdicts import comparisons as c
from snn_probe.verdicts import quantities as q
from snn_probe.verdicts.comparisons import compared, lowest
from snn_probe.verdicts.paired import Estimate, PerSeed, decide, difference, relative
from snn_probe.verdicts.quantities import Missing, Tables

TET = "TET (Deng et al., ICLR 2022)"
TRT = "TRT (Zhang, Xu, Tao, arXiv 2506.19256)"
KIM = "Kim et al., AAAI 2023"
RELEASED = "assumed by the released code of Kim et al. and TRT"
OURS = "asked here"  # no paper says so

# The smallest effects that matter, named before any study was run.
ACCURACY = 0.5  # points of test accuracy: about what the papers' tables report as a gain
GAP = 1.0  # points of the gap between training and test accuracy
RELATIVE = 0.1  # 10 % of a curvature, rise, ratio, time or energy
AGREEMENT = 0.5  # of a rank correlation
CENTROID = 0.2  # timesteps
SHARE = 0.02  # of the Fisher information at the first timestep
ROUNDING = 1e-5  # of a loss in single precision

ALL_ARMS = ("sdt", "tet", "trt", "trt-l2")
_COLUMNS = ("claim", "statement", "source", "group", "arms", "effect", "unit", "low", "high", "n_seeds", "rule",
            "smallest_effect", "p", "p_corrected", "p_contrary", "p_contrary_corrected", "verdict", "note")  # fmt: skip


@dataclass(frozen=True)
class Claim:
    """A statement, who makes it, and the effect that decides it.

    measure(tables, *arms) gives the effect per seed, its sign such that positive is what the claim says: of two arms
    the first one's quantity minus the second's. ``rule``: "more", "kept" or "always" of :mod:`snn_probe.verdicts.paired`;
    ``smallest`` its m, in ``unit``. ``caveat`` goes into the note.
    """

    name: str
    statement: str
    source: str
    measure: Callable[..., PerSeed]
    arms: tuple[str, ...]
    unit: str
    smallest: float
    rule: str = "more"
    caveat: str = ""


ACCURACIES = (
    Claim("accuracy-tet-sdt", "TET generalises better than SDT: higher test accuracy", TET,
          compared(q.accuracy, difference), ("tet", "sdt"), "points", ACCURACY),
    Claim("accuracy-trt-tet", "TRT reaches a higher test accuracy than TET", TRT,
          compared(q.accuracy, difference), ("trt", "tet"), "points", ACCURACY),
    Claim("accuracy-trt-l2", "TRT reaches a higher test accuracy than plain L2 of the same strength", TRT,
          compared(q.accuracy, difference), ("trt", "trt-l2"), "points", ACCURACY),
    *(Claim(f"gap-{less}-{more}",
            f"{less.upper()} overfits less than {name}: a smaller gap from training to test accuracy",
            TET if less == "tet" else TRT, compared(q.generalisation_gap, difference), (more, less), "points", GAP,
            caveat="training accuracy is the mean over the last epoch, in train mode")
      for less, more, name in (("tet", "sdt", "SDT"), ("trt", "sdt", "SDT"), ("trt", "tet", "TET"),
                               ("trt", "trt-l2", "plain L2 of the same strength"))),
)  # fmt: skip

_FLATNESS = {
    "eigenvalue": ("the top eigenvalue of the Hessian", q.top_eigenvalue),
    "trace": ("the trace of the Hessian", q.hessian_trace),
    "slice": (f"the rise of the sampled loss at distance {q.RADIUS:g}", q.landscape_rise),
}
FLATNESS = (
    *(Claim(f"flat-{flat}-{steep}-{measure}", f"{flat.upper()} ends in a flatter minimum than {name}, by {words}",
            TET if flat == "tet" else TRT, compared(quantity, relative), (steep, flat), "relative", RELATIVE,
            caveat="" if measure == "slice" else "curvature through surrogate gradients")
      for flat, steep, name in (("tet", "sdt", "SDT"), ("trt", "tet", "TET"), ("trt", "trt-l2", "plain L2"))
      for measure, (words, quantity) in _FLATNESS.items()),
    Claim("flat-agree", "Top eigenvalue, trace and slice rank the methods alike", OURS, c.flatness_ranks_agree,
          ALL_ARMS, "rank correlation", AGREEMENT),
)  # fmt: skip

CONCENTRATION = (
    *(Claim(f"centroid-falls-{arm}", f"The information centroid falls during training ({arm.upper()})",
            TRT if arm == "trt" else KIM, q.centroid_fall, (arm,), "timesteps", CENTROID) for arm in ALL_ARMS),
    *(Claim(f"centroid-trt-{other}", f"The information centroid falls further with TRT than with {name}", TRT,
            compared(q.centroid_fall, difference), ("trt", other), "timesteps", CENTROID)
      for other, name in (("sdt", "SDT"), ("trt-l2", "plain L2"))),
    *(Claim(f"first-share-trt-{other}",
            f"TRT ends with more of the Fisher information at the first timestep than {name}", TRT,
            compared(q.first_share, difference), ("trt", other), "share", SHARE)
      for other, name in (("sdt", "SDT"), ("trt-l2", "plain L2"))),
)  # fmt: skip

GRADIENTS = tuple(
    Claim(f"gradients-{more}-{less}",
          f"Temporal gradients vanish less with {more.upper()} than with {name} (first timestep over the last)",
          TRT if more == "trt" else OURS, compared(q.gradient_ratio, relative), (more, less), "relative", RELATIVE)
    for more, less, name in (("tet", "sdt", "SDT"), ("trt", "tet", "TET"), ("trt", "trt-l2", "plain L2"))
)  # fmt: skip

EFFICIENCY = (
    Claim("lemma", "L_SDT is at most L_TET, with mse_weight w: (1 - w) L_SDT <= L_TET", TET, lowest(c.lemma), ALL_ARMS,
          "relative", -ROUNDING, "always", f"w = {c.TET_MSE_WEIGHT:g} unless the table says otherwise"),
    Claim("scalability-tet-sdt", "TET keeps its accuracy better than SDT at other T than it was trained with", TET,
          compared(q.accuracy_kept, difference), ("tet", "sdt"), "points", ACCURACY),
    Claim("tit-accuracy", "Time inheritance training keeps the accuracy of direct training", TET,
          compared(q.accuracy, difference), ("tit", "tet"), "points", ACCURACY, "kept"),
    Claim("tit-cost", "Time inheritance training costs fewer timesteps x epochs than direct training", TET,
          c.timestep_epochs_saved, ("tet", "tit"), "relative", RELATIVE, "always", "counted, not timed"),
    Claim("switch-sdt", "Going on with TET after SDT raises the test accuracy over SDT alone", TET,
          compared(q.accuracy, difference), ("switch", "sdt"), "points", ACCURACY),
    Claim("switch-tet", "Going on with TET after SDT reaches the accuracy of TET throughout", TET,
          compared(q.accuracy, difference), ("switch", "tet"), "points", ACCURACY, "kept"),
    *(Claim(f"energy-{less}-{more}", f"{less.upper()} needs less energy than {more.upper()} for the same test accuracy",
            OURS, c.energy_saving, (more, less), "relative", RELATIVE,
            caveat=f"fewest timesteps within {100 * c.ENERGY_MARGIN:g} point of the accuracy that both reach")
      for less, more in (("tet", "sdt"), ("trt", "tet"))),
)  # fmt: skip

TOOLS = (
    Claim("batch-mean-fisher", "Squaring the gradient of a batch mean gives the Fisher trace, to 10 %", RELEASED,
          lowest(c.batch_mean_agrees), ALL_ARMS, "relative", -RELATIVE, "always", "at t = T"),
    Claim("batch-mean-centroid",
          f"Squaring the gradient of a batch mean gives the information centroid, to {CENTROID:g} timesteps", RELEASED,
          lowest(c.batch_mean_centroid_agrees), ALL_ARMS, "timesteps", -CENTROID, "always"),
    Claim("curvature", "The top eigenvalue through surrogate gradients is the curvature of the sampled loss, to 10 %",
          OURS, lowest(c.curvature_agrees), ALL_ARMS, "relative", -RELATIVE, "always",
          "least-squares parabola of the slice"),
)  # fmt: skip

CLAIMS = (*ACCURACIES, *FLATNESS, *CONCENTRATION, *GRADIENTS, *EFFICIENCY, *TOOLS)


def judge(tables: Tables) -> pd.DataFrame:
    """The verdicts: one row per claim and group that the tables allow, corrected over all of these.

    Columns: claim (short name), statement, source, group, arms ("a - b": a minus b); effect (mean over seeds; of
    "always" the lowest seed) in unit, with its uncorrected 95 % t interval low..high (NaN where there is none);
    n_seeds; rule and smallest_effect; one-sided p of "not as claimed" and p_contrary of "at least the smallest effect",
    each also corrected by Holm; verdict: "supported", "contradicted" or "undecided"; note: why, and which seeds are
    left out.

    Raises ValueError for a table without arm, group or seed, and for one that has a measurement twice.
    """
    found = [(claim, group, got) for claim, group, got in _measured(tables) if isinstance(got, PerSeed)]
    estimates = [Estimate(tuple(got.by_seed.values())) for _, _, got in found]
    decisions = decide([(e, claim.rule, claim.smallest) for e, (claim, _, _) in zip(estimates, found, strict=True)])
    rows = []
    for (claim, group, got), estimate, decision in zip(found, estimates, decisions, strict=True):
        always = claim.rule == "always"
        low, high = (np.nan, np.nan) if always else estimate.interval()
        effect = min(estimate.values, default=np.nan) if always else estimate.mean
        rows.append({
            "claim": claim.name, "statement": claim.statement, "source": claim.source, "group": group, "arms": got.arms,
            "effect": effect, "unit": claim.unit, "low": low, "high": high, "n_seeds": estimate.n, "rule": claim.rule,
            "smallest_effect": claim.smallest, "p": decision.p, "p_corrected": decision.p_corrected,
            "p_contrary": decision.p_contrary, "p_contrary_corrected": decision.p_contrary_corrected,
            "verdict": decision.verdict, "note": _note(decision.why, claim.caveat, got),
        })  # fmt: skip
    return pd.DataFrame(rows, columns=list(_COLUMNS))


def missing_claims(tables: Tables) -> pd.DataFrame:
    """The claims that :func:`judge` leaves out: columns claim, statement, group and why."""
    rows = [
        (claim.name, claim.statement, group, got) for claim, group, got in _measured(tables) if isinstance(got, str)
    ]
    return pd.DataFrame(rows, columns=["claim", "statement", "group", "why"])


def effect_table(judged: pd.DataFrame) -> pd.DataFrame:
    """The judged rows for a figure of all effects on one axis, each in units of its smallest effect that matters.

    Columns: claim, statement, group, arms, n_seeds, verdict; effect, low and high over smallest_effect; and ``nothing``
    and ``enough``, the two values that the interval is held against: 0 and 1 for "more", -1 and -1 for "kept". Sorted
    by verdict (supported, undecided, contradicted), then from the largest effect down. Rules without an interval
    ("always") and rows without a seed are left out.
    """
    shown = judged[(judged["rule"] != "always") & (judged["n_seeds"] > 0)]
    kept = (shown["rule"] == "kept").to_numpy()
    names = ["claim", "statement", "group", "arms", "n_seeds", "verdict"]
    scaled = shown[["effect", "low", "high"]].div(shown["smallest_effect"], axis=0)
    found = pd.concat([shown[names], scaled], axis=1)
    found = found.assign(nothing=np.where(kept, -1.0, 0.0), enough=np.where(kept, -1.0, 1.0))
    order = found["verdict"].map({"supported": 0, "undecided": 1, "contradicted": 2})
    found = found.assign(order=order).sort_values(["order", "effect"], ascending=[True, False], kind="stable")
    return found.drop(columns="order").reset_index(drop=True)


def _measured(tables: Tables) -> Iterator[tuple[Claim, str, PerSeed | str]]:
    """Every claim in every group: the effect per seed, or why there is none."""
    tables = {name: table for name, table in tables.items() if name in q.COORDINATES and not table.empty}
    for name, table in tables.items():
        if lacking := [column for column in ("arm", "group", "seed") if column not in table]:
            raise ValueError(f"table {name!r} has no column {lacking[0]!r}; give the tables of a study")
    groups = dict.fromkeys(group for table in tables.values() for group in table["group"]) or {"": None}
    parts = {group: {name: table[table["group"] == group] for name, table in tables.items()} for group in groups}
    for claim in CLAIMS:
        for group in groups:
            try:
                yield claim, group, claim.measure(parts[group], *claim.arms)
            except Missing as reason:
                yield claim, group, str(reason)


def _note(why: str, caveat: str, got: PerSeed) -> str:
    left_out = ", ".join(f"seed {seed} ({reason})" for seed, reason in sorted(got.left_out.items()))
    return "; ".join(part for part in (why, caveat, left_out and f"left out: {left_out}") if part)
