"""Tables of a study that never was, in which the quantities that claims compare have chosen values.

``levels`` is {arm: {seed: value}}; each function gives the tables in which that value is the quantity named.
"""

import pandas as pd

SEEDS = range(8)
T = 4


def table(levels, rows_of, group="", **columns):
    """``rows_of(value)`` gives a network's rows as dicts."""
    found = [
        {"arm": arm, "group": group, "seed": seed, "num_steps": T, "run": f"{arm}-seed{seed}", **columns, **row}
        for arm, values in levels.items()
        for seed, value in values.items()
        for row in rows_of(value)
    ]
    return pd.DataFrame(found)


def metrics(levels, rows_of, epochs=3, **more):
    """``rows_of(value)``: columns of the last epoch; those before it are all another network's."""

    def every_epoch(value):
        before = [{"epoch": e, "train_accuracy": 0.3, "test_accuracy": 0.2} for e in range(1, epochs)]
        return [*before, {"epoch": epochs, **rows_of(value)}]

    return {"metrics": table(levels, every_epoch, **more)}


def accuracy(levels, **more):
    return metrics(levels, lambda v: {"train_accuracy": v / 100 + 0.02, "test_accuracy": v / 100}, **more)


def gap(levels, **more):
    return metrics(levels, lambda v: {"train_accuracy": 0.8 + v / 100, "test_accuracy": 0.8}, **more)


def eigenvalue(levels, **more):
    def rows(v):
        return [{"rank": r, "eigenvalue": v / r, "residual": 1e-4, "converged": r == 1} for r in (2, 1)]

    return {"eigenvalues": table(levels, rows, **{"epoch": 9, **more})}


def trace(levels, **more):
    return {"hessian_trace": table(levels, lambda v: [{"trace": v, "stderr": 0.1, "n_probes": 30}], epoch=9, **more)}


def rise(levels, **more):
    """Two directions, one steeper than the other; the loss tet is as flat in all networks."""

    def rows(v):
        return [
            {"directions": name, "objective": objective, "alpha": a, "beta": 0.0, "accuracy": 0.5, "finite": True,
             "loss": start + share * steepness * (a / 0.5) ** 2}
            for name, share in (("seed 0", 0.5), ("seed 1", 1.5))
            for objective, start, steepness in (("sdt", 1.0, v), ("tet", 2.0, 1.0))
            for a in (-1.0, -0.5, 0.0, 0.5, 1.0)
        ]  # fmt: skip

    return {"landscape": table(levels, rows, epoch=9, **more)}


def traces(at_first, layer="all"):
    """Rows of a Fisher table with that share at the first timestep and the rest at the last."""
    shares = {1: at_first, T: 1 - at_first}
    return [{"layer": layer, "timestep": t, "trace": 7 * shares.get(t, 0.0), "stderr": 0.1} for t in range(1, T + 1)]


def fall(levels, **more):
    """At epochs 1, 5 and 9 a centroid of 3, 3 - v/2 and 3 - v: a share p at the last timestep gives 1 + (T - 1) p."""

    def rows(v):
        return [
            {"epoch": epoch, **row}
            for epoch, part in ((1, 0.0), (5, 0.5), (9, 1.0))
            for row in [*traces(1 - (2 - part * v) / (T - 1)), *traces(0.5, layer="conv")]
        ]

    return {"fisher": table(levels, rows, **more)}


def first_share(levels, **more):
    return {"fisher": table(levels, traces, epoch=9, **more)}


def gradient_ratio(levels, **more):
    """Two layers of different size and ratio, v the geometric mean of their ratios."""

    def rows(v):
        return [
            {"layer": layer, "timestep": t, "norm": size * (v * factor if t == 1 else 1.0)}
            for layer, size, factor in (("a", 5.0, 2.0), ("b", 0.1, 0.5))
            for t in range(1, T + 1)
        ]

    return {"gradients": table(levels, rows, epoch=9, **more)}


def accuracy_kept(levels, **more):
    """0.9 at T; v points more on average at t = 1, 2, 3, 5 and 6, where the offsets sum to 0."""
    offsets = {1: -0.02, 2: -0.01, 3: 0.0, 5: 0.01, 6: 0.02}

    def rows(v):
        return [{"timestep": t, "accuracy": 0.9 + (v / 100 + offsets[t] if t != T else 0.0)} for t in range(1, 7)]

    return {"timesteps": table(levels, rows, epoch=9, **more)}
