"""Tables of a small invented study with known numbers, for the tests of its figures and its report."""

import itertools

import numpy as np
import pandas as pd

ARMS = ("sdt", "tet", "trt", "trt-l2")
GROUPS = ("150 examples", "1000 examples")
SEEDS = (0, 1, 4)


def rows(columns, points, arms=ARMS, groups=GROUPS, seeds=SEEDS, epoch=20):
    """One row per group, arm, seed and point; ``points(g, a, s)`` gives lists of values for ``columns``."""
    found = []
    for (g, group), (a, arm), seed in itertools.product(enumerate(groups), enumerate(arms), seeds):
        method = "trt" if arm == "trt-l2" else arm
        known = {"arm": arm, "group": group, "run": f"{arm}-{g}-{seed}", "method": method, "dataset": "digits",
                 "model": "tiny", "seed": seed, "epoch": epoch, "num_steps": 3, "checkpoint": "epoch"}  # fmt: skip
        found += [{**known, **dict(zip(columns, point, strict=True))} for point in points(g, a, seed)]
    return pd.DataFrame(found)


def metrics(g, a, s):
    return [(e, 0.5 + 0.02 * e + 0.01 * s, 0.4 + 0.02 * e + 0.01 * a, 2 / e, 3 / e + 0.1 * g) for e in (1, 2, 3)]


def fisher(g, a, s):
    return [(e, layer, t, (a + 1) * t * e + s, 0.1) for e in (1, 20) for layer in ("conv", "all") for t in (1, 2, 3)]


def slice_points(g, a, s, betas=(0.0,)):
    grid = itertools.product(("sdt", "tet"), np.linspace(-1, 1, 5), betas)
    return [(o, x, y, 0.1 + (a + 1) * x**2 + y**2 + 0.01 * s, 0.9, True) for o, x, y in grid]


def plane_points(g, a, s):
    return [point for point in slice_points(g, a, s, np.linspace(-1, 1, 5)) if point[0] == "sdt"]


def gradients(g, a, s):
    return [
        (layer, t, (i + 1) * t + s + a, (i + 1) * 0.5 * t) for i, layer in enumerate(("l1", "l2")) for t in (1, 2, 3)
    ]


def activity(g, a, s):
    found = [("conv", t, np.nan, 100.0, 460.0) for t in (1, 2, 3)]
    found += [("lif", t, 0.1 * t + 0.01 * s, np.nan, np.nan) for t in (1, 2, 3)]
    return [*found, *(("all", t, np.nan, 100.0, 460.0) for t in (1, 2, 3))]


def study_tables(**chosen):
    """All tables that figures are drawn from but the ledger; ``chosen`` goes to :func:`rows`."""
    parts = {
        "metrics": (("epoch", "train_accuracy", "test_accuracy", "train_loss", "test_loss"), metrics),
        "fisher": (("epoch", "layer", "timestep", "trace", "stderr"), fisher),
        "fisher_batch_mean": (("epoch", "layer", "timestep", "trace", "stderr"), fisher),
        "eigenvalues": (("rank", "eigenvalue", "residual", "converged", "products"),
                        lambda g, a, s: [(r, (a + 1) * 10.0 / r + s, 0.0, r == 1 or s > 0, 9) for r in (1, 2)]),
        "hessian_trace": (("trace", "stderr", "n_probes"), lambda g, a, s: [(100.0 * (a + 1) + s, 1.0, 4)]),
        "density": (("eigenvalue", "density"),
                    lambda g, a, s: [(x + s, 1 / (1 + x**2)) for x in np.linspace(-2.0, 30.0, 9)]),
        "landscape": (("objective", "alpha", "beta", "loss", "accuracy", "finite"), slice_points),
        "plane": (("objective", "alpha", "beta", "loss", "accuracy", "finite"), plane_points),
        "eigenslice": (("objective", "alpha", "beta", "loss", "accuracy", "finite"), slice_points),
        "gradients": (("layer", "timestep", "norm", "norm_spatial"), gradients),
        "timesteps": (("timestep", "accuracy", "stderr", "loss"),
                      lambda g, a, s: [(t, 0.6 + 0.05 * t + 0.01 * s, 0.01, 1.0) for t in range(1, 6)]),
        "activity": (("layer", "timestep", "firing_rate", "synops", "energy_pj"), activity),
    }  # fmt: skip
    return {name: rows(columns, points, **chosen) for name, (columns, points) in parts.items()}


def ledger():
    """Three claims, one of them in two groups; verdicts of every kind, one claim without an interval."""
    better, worse = ("a", "TET beats SDT", "TET <b>"), ("b", "TRT beats L2 | its control", "TRT")
    columns = {
        "claim statement source": [better, better, worse, ("c", "The lemma", "TET")],
        "group": [GROUPS[0], GROUPS[1], GROUPS[0], GROUPS[0]],
        "arms": ["tet - sdt", "tet - sdt", "trt - trt-l2", "sdt, tet"],
        "effect": [1.5, 0.1, -2.0, 0.02],
        "unit": ["points", "points", "points", "relative"],
        "low": [0.5, -1.0, -3.0, np.nan],
        "high": [2.5, 1.2, -1.0, np.nan],
        "n_seeds": 3,
        "rule": ["more", "more", "more", "always"],
        "smallest_effect": [0.5, 0.5, 0.5, -1e-5],
        "p_corrected": [0.02, 1.0, 1.0, np.nan],
        "verdict": ["supported", "undecided", "contradicted", "supported"],
        "note": ["", "", "reversed", ""],
    }
    said = pd.DataFrame(columns.pop("claim statement source"), columns=["claim", "statement", "source"])
    return said.assign(**columns)
