"""Every claim on tables whose truth is known: planted, absent and reversed; and what is left out, and why."""

import itertools
import math

import claim_tables as make
import numpy as np
import pandas as pd
import pytest

from snn_probe.claims import ALL_ARMS, CLAIMS, effect_table, judge, missing_claims
from snn_probe.verdicts.paired import relative

NAMED = {claim.name: claim for claim in CLAIMS}


def levels(values, seeds=make.SEEDS, noise=0.0, seed=1):
    """{arm: {seed: value}} around one value per arm."""
    generator = np.random.default_rng(seed)
    return {arm: {s: v + noise * generator.standard_normal() for s in seeds} for arm, v in values.items()}


def row(tables, name):
    (found,) = judge(tables).query("claim == @name").to_dict("records")
    return found


# claim -> tables with the quantity, its value in the second arm, and what the first has more of it if the claim is true
COMPARED = {
    **{f"accuracy-{n}": (make.accuracy, 90.0, 2.0) for n in ("tet-sdt", "trt-tet", "trt-l2")},
    "switch-sdt": (make.accuracy, 90.0, 2.0),
    **{f"gap-{n}": (make.gap, 5.0, 3.0) for n in ("tet-sdt", "trt-sdt", "trt-tet", "trt-trt-l2")},
    **{
        f"flat-{pair}-{measure}": (tables, 10.0, 5.0)
        for pair in ("tet-sdt", "trt-tet", "trt-trt-l2")
        for measure, tables in (("eigenvalue", make.eigenvalue), ("trace", make.trace), ("slice", make.rise))
    },
    **{f"centroid-trt-{other}": (make.fall, 0.5, 0.6) for other in ("sdt", "trt-l2")},
    **{f"first-share-trt-{other}": (make.first_share, 0.4, 0.2) for other in ("sdt", "trt-l2")},
    **{f"gradients-{n}": (make.gradient_ratio, 0.5, 0.3) for n in ("tet-sdt", "trt-tet", "trt-trt-l2")},
    "scalability-tet-sdt": (make.accuracy_kept, -5.0, 3.0),
}  # fmt: skip


def arms_of(name):
    """The two arms, first the one that has more if the claim is true: said here again, not read from the claim."""
    for pair in (("tet", "sdt"), ("trt", "sdt"), ("trt", "tet"), ("trt", "trt-l2"), ("switch", "sdt")):
        if "-".join(pair) in name.replace("accuracy-trt-l2", "accuracy-trt-trt-l2"):
            less_is_claimed = name.startswith(("gap", "flat", "energy"))
            return pair[::-1] if less_is_claimed else pair
    raise AssertionError(name)


def test_every_claim_has_its_own_name_and_is_tested_here():
    others = {
        *(f"centroid-falls-{arm}" for arm in ALL_ARMS), "flat-agree", "lemma", "tit-accuracy", "tit-cost", "switch-tet",
        "energy-tet-sdt", "energy-trt-tet", "batch-mean-fisher", "batch-mean-centroid", "curvature",
    }  # fmt: skip
    assert len(NAMED) == len(CLAIMS) and NAMED.keys() == COMPARED.keys() | others


@pytest.mark.parametrize("name", COMPARED)
def test_a_planted_effect_is_found_with_its_size(name):
    tables, base, more = COMPARED[name]
    first, second = arms_of(name)
    assert row(tables(levels({first: base + more, second: base})), name)["effect"] == pytest.approx(
        relative(base + more, base) if NAMED[name].unit == "relative" else more
    )
    found = row(tables(levels({first: base + more, second: base}, noise=0.05 * more)), name)
    assert found["verdict"] == "supported" and found["low"] > 0 and found["n_seeds"] == 8
    assert found["arms"] == f"{first} - {second}" and found["group"] == ""


@pytest.mark.parametrize("name", COMPARED)
def test_a_reversed_effect_is_contradicted(name):
    tables, base, more = COMPARED[name]
    first, second = arms_of(name)
    found = row(tables(levels({first: base, second: base + more}, noise=0.05 * more)), name)
    assert found["verdict"] == "contradicted" and found["note"].startswith("reversed") and found["high"] < 0


@pytest.mark.parametrize("name", COMPARED)
def test_no_effect_is_not_supported(name):
    """With little noise it is surely smaller than matters, with much nothing is sure."""
    tables, base, more = COMPARED[name]
    arms = dict.fromkeys(arms_of(name), base)
    found = row(tables(levels(arms, noise=0.002 * more)), name)
    assert found["verdict"] == "contradicted" and found["note"].startswith("no effect of that size")
    assert row(tables(levels(arms, noise=0.3 * more, seed=2)), name)["verdict"] != "supported"


@pytest.mark.parametrize("arm", ALL_ARMS)
@pytest.mark.parametrize(("fall", "verdict"), [(0.8, "supported"), (-0.8, "contradicted"), (0.0, "contradicted")])
def test_the_centroid_of_each_arm_falls_or_not(arm, fall, verdict):
    found = row(make.fall(levels({arm: fall}, noise=0.02)), f"centroid-falls-{arm}")
    assert found["verdict"] == verdict and found["effect"] == pytest.approx(fall, abs=0.03) and found["arms"] == arm


def test_the_fall_of_the_centroid_uses_all_epochs():
    """A detour at the middle epoch of three, equally spaced, does not move the least-squares line's slope; at an outer
    epoch it does, by half of the slope between the outer ones."""
    tables = make.fall(levels({"sdt": 0.8}))
    fisher = tables["fisher"]
    for epoch, expected in ((5, 0.8), (9, -2.0 + 2.2)):
        moved = fisher[~((fisher["epoch"] == epoch) & (fisher["layer"] == "all"))]
        detour = make.table({"sdt": dict.fromkeys(make.SEEDS, 0.0)}, lambda _: make.traces(0.4), epoch=epoch)
        found = row({"fisher": pd.concat([moved, detour])}, "centroid-falls-sdt")
        assert found["effect"] == pytest.approx(expected)


@pytest.mark.parametrize("name", ["tit-accuracy", "switch-tet"])
@pytest.mark.parametrize(
    ("gain", "verdict"), [(2.0, "supported"), (-0.1, "supported"), (-0.5, "undecided"), (-2.0, "contradicted")]
)
def test_accuracy_is_kept_unless_it_falls_by_what_matters(name, gain, verdict):
    first, second = ("switch", "tet") if name == "switch-tet" else ("tit", "tet")
    found = row(make.accuracy(levels({first: 90 + gain, second: 90.0}, noise=0.05)), name)
    assert found["verdict"] == verdict


def schedule(by_epoch, arm):
    rows = [{"epoch": e, "num_steps": t, "test_accuracy": 0.9} for e, t in enumerate(by_epoch, 1)]
    return make.table({arm: dict.fromkeys(range(2), 0.0)}, lambda _: rows)


@pytest.mark.parametrize(
    ("stages", "verdict"), [([2] * 8 + [6] * 2, "supported"), ([2] + [6] * 9, "contradicted")]
)  # fmt: skip
def test_the_cost_of_time_inheritance_is_counted_in_timesteps(stages, verdict):
    tables = {"metrics": pd.concat([schedule([6] * 10, "tet"), schedule(stages, "tit")])}
    found = row(tables, "tit-cost")
    assert found["verdict"] == verdict and found["effect"] == pytest.approx(relative(60, sum(stages)))


def test_the_cost_is_missing_where_metrics_names_only_the_last_stage():
    tables = {"metrics": pd.concat([schedule([6] * 10, "tet"), schedule([6] * 10, "tit")])}
    assert why(tables, "tit-cost") == "table 'metrics' has one num_steps for all epochs of 'tet' and 'tit'"


def flatness_tables(orders):
    """Eigenvalue, trace and rise of four arms with the given values, times a number in each of 14 seeds."""
    makers = (make.eigenvalue, make.trace, make.rise)
    tables = {}
    for maker, order in zip(makers, orders, strict=True):
        scaled = {arm: {seed: v * (1 + seed) for seed in range(14)} for arm, v in zip(ALL_ARMS, order, strict=True)}
        tables |= maker(scaled)
    return tables


@pytest.mark.parametrize(
    ("orders", "agreement"),
    [
        ([(4, 3, 2, 1), (40, 30, 20, 10), (9, 8, 1, 0.5)], 1.0),
        ([(4, 3, 2, 1), (4, 3, 2, 1), (1, 2, 3, 4)], -1 / 3),
        ([(4, 3, 2, 1), (4, 3, 1, 2), (4, 3, 2, 1)], (0.8 + 0.8 + 1) / 3),
    ],
)
def test_measures_of_flatness_agree_in_rank(orders, agreement):
    """Spearman by hand: 1 - 6 sum d^2 / (n (n^2 - 1)), n = 4; one exchange of neighbours gives 0.8."""
    found = row(flatness_tables(orders), "flat-agree")
    assert found["effect"] == pytest.approx(agreement) and found["arms"] == "sdt, tet, trt, trt-l2"
    assert found["verdict"] == ("supported" if agreement > 0 else "contradicted")
    assert "sign test" in found["note"]


def test_ranks_need_three_arms_and_a_difference():
    tables = flatness_tables([(4, 3, 2, 1)] * 3)
    few = {**tables, "eigenvalues": tables["eigenvalues"].query("arm in ('sdt', 'tet')")}
    assert why(few, "flat-agree").startswith("2 arms of at least 3 have it: table 'eigenvalues' has no arm")
    equal = row(flatness_tables([(4, 3, 2, 1), (1, 1, 1, 1), (4, 3, 2, 1)]), "flat-agree")
    assert equal["n_seeds"] == 0 and "a measure is the same for all arms" in equal["note"]


def losses(sdt, tet, **columns):
    """A landscape of three points with these losses at them."""
    rows = [
        {"directions": "d", "objective": name, "alpha": a, "beta": 0.0, "loss": loss, "finite": True}
        for name, values in (("sdt", sdt), ("tet", tet))
        for a, loss in zip((-1.0, 0.0, 1.0), values, strict=True)
    ]
    return {"landscape": make.table(levels({"tet": 0.0}, seeds=range(2)), lambda _: rows, epoch=9, **columns)}


def test_the_lemma_holds_at_every_finite_point_or_fails():
    assert row(losses((1.0, 0.5, 2.0), (1.1, 0.5, 2.0)), "lemma")["verdict"] == "supported"
    found = row(losses((1.0, 0.5, 2.0), (1.1, 0.5, 2.0), mse_weight=0.0), "lemma")
    assert found["verdict"] == "supported" and found["effect"] == 0.0 and math.isnan(found["low"])
    broken = row(losses((1.0, 0.5, 2.0), (1.1, 0.4, 2.0), mse_weight=0.0), "lemma")
    assert broken["verdict"] == "contradicted" and broken["effect"] == pytest.approx(relative(0.4, 0.5))
    assert row(losses((1.0, 0.5, 2.0), (1.1, 0.47, 2.0)), "lemma")["verdict"] == "contradicted"  # below 0.95 of it
    assert row(losses((1.0, 0.5, 2.0), (1.1, 0.48, 2.0)), "lemma")["verdict"] == "supported"
    assert row(losses((1.0, 0.5, math.inf), (1.1, 0.5, math.nan)), "lemma")["verdict"] == "supported"
    assert row(losses((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)), "lemma")["effect"] == 0.0


def steps(accuracies, spent):
    """timesteps and activity of one network per seed: accuracy of the first t logits, energy of timestep t."""
    curve = [{"timestep": t, "accuracy": a} for t, a in enumerate(accuracies, 1)]
    layers = itertools.product(("fc", "all"), enumerate(spent, 1))
    return curve, [{"layer": layer, "timestep": t, "energy_pj": e} for layer, (t, e) in layers]


def energy_tables(first, second, arms=("sdt", "tet")):
    both = dict(zip(arms, (steps(*first), steps(*second)), strict=True))
    one = {seed: 0.0 for seed in make.SEEDS}
    return {
        name: pd.concat([make.table({arm: one}, lambda _, p=parts[i]: p, epoch=9) for arm, parts in both.items()])
        for i, name in enumerate(("timesteps", "activity"))
    }


@pytest.mark.parametrize("name", ["energy-tet-sdt", "energy-trt-tet"])
def test_energy_is_compared_at_the_accuracy_that_both_reach(name):
    """The lower final accuracy is 0.90: the level is 0.89, that the first arm reaches at t = 3, the second at t = 2.
    Timesteps beyond T, of which no energy is known, take no part."""
    arms = arms_of(name)
    first = [0.5, 0.7, 0.89, 0.9, 0.99], [4, 3, 3, 3]
    second = [0.6, 0.92, 0.91, 0.93, 0.2], [2, 3, 9, 9]
    found = row(energy_tables(first, second, arms), name)
    assert found["effect"] == pytest.approx(relative(10, 5)) and found["verdict"] == "supported"
    same = row(energy_tables(([0.5, 0.9], [2, 2]), ([0.5, 0.9], [2, 2]), arms), name)
    assert same["effect"] == 0 and same["verdict"] == "contradicted"
    reverse = row(energy_tables(([0.5, 0.9], [1, 1]), ([0.5, 0.9], [3, 3]), arms), name)
    assert reverse["verdict"] == "contradicted" and reverse["note"].startswith("reversed")


def test_energy_of_a_seed_without_all_timesteps_is_left_out():
    tables = energy_tables(([0.5, 0.9], [2, 2]), ([0.5, 0.9], [1, 1]))
    activity = tables["activity"]
    lost = (activity["seed"] == 3) & (activity["arm"] == "tet") & (activity["timestep"] == 1)
    found = row({**tables, "activity": activity.assign(energy_pj=activity["energy_pj"].where(~lost))}, "energy-tet-sdt")
    assert found["n_seeds"] == 7 and "seed 3 (no accuracy or energy" in found["note"]


def both_fishers(exact, batch):
    one = levels({"sdt": 0.0, "trt": 0.0}, seeds=range(3))
    return {
        "fisher": make.table(one, lambda _: exact, epoch=9),
        "fisher_batch_mean": make.table(one, lambda _: batch, epoch=9),
    }


def test_the_batch_mean_estimator_is_compared_on_the_same_networks():
    """A batch mean that sees a sixteenth at every timestep has another trace and the same centroid."""
    exact = make.traces(0.5)
    smaller = [{**r, "trace": r["trace"] / 16} for r in exact]
    other = make.traces(0.6)
    scaled, moved, equal = (both_fishers(exact, batch) for batch in (smaller, other, exact))
    assert row(scaled, "batch-mean-fisher")["verdict"] == "contradicted"
    assert row(scaled, "batch-mean-fisher")["effect"] == pytest.approx(-relative(16, 1))
    assert row(scaled, "batch-mean-centroid")["verdict"] == row(equal, "batch-mean-fisher")["verdict"] == "supported"
    assert row(moved, "batch-mean-centroid")["effect"] == pytest.approx(-0.3)
    assert row(moved, "batch-mean-centroid")["verdict"] == "contradicted"
    later = pd.concat([equal["fisher"], moved["fisher_batch_mean"].assign(epoch=15)])
    assert row({**equal, "fisher": later}, "batch-mean-centroid")["effect"] == pytest.approx(0.0)
    apart = {**equal, "fisher_batch_mean": equal["fisher_batch_mean"].assign(epoch=5)}
    assert "no epoch in common" in why(apart, "batch-mean-fisher")


def eigenslices(curvature, eigenvalue, **columns):
    """A parabola with a slope; ``eigenvalue`` beside it."""
    rows = [
        {"objective": "sdt", "alpha": a, "beta": 0.0, "loss": 2.0 - 3 * a + curvature / 2 * a**2, "finite": True}
        for a in (-0.1, -0.05, 0.0, 0.05, 0.1)
    ]
    one = levels({"sdt": 0.0}, seeds=range(3))
    return {"eigenslice": make.table(one, lambda _: rows, epoch=9, eigenvalue=eigenvalue, converged=True, **columns)}


def test_curvature_is_compared_with_the_sampled_loss():
    same, other = eigenslices(4.0, 4.1), eigenslices(-200.0, 4.0)
    assert row(same, "curvature")["verdict"] == "supported"
    assert row(same, "curvature")["effect"] == pytest.approx(-relative(4.1, 4.0))
    assert row(other, "curvature")["verdict"] == "contradicted"
    one_bad = same["eigenslice"].copy()
    one_bad.loc[(one_bad["seed"] == 2) & (one_bad["alpha"].abs() > 0.05), ["loss", "finite"]] = [1e9, False]
    assert row({"eigenslice": one_bad}, "curvature")["n_seeds"] == 3
    one_bad.loc[one_bad["seed"] == 2, "finite"] = False
    one_bad.loc[one_bad["seed"] == 1, "converged"] = False
    found = row({"eigenslice": one_bad}, "curvature")
    assert found["n_seeds"] == 1 and found["verdict"] == "undecided"
    assert "seed 1 (sdt: the eigenvalue did not converge), seed 2 (sdt: fewer than 3 finite points)" in found["note"]


def test_one_network_refutes_what_is_said_of_all():
    tables = eigenslices(4.0, 4.0)
    wrong = eigenslices(-4.0, 4.0)["eigenslice"].query("seed == 1").assign(arm="trt")
    found = row({"eigenslice": pd.concat([tables["eigenslice"], wrong])}, "curvature")
    assert found["verdict"] == "contradicted" and found["note"].startswith("fails in 1 of 3 seeds")
    assert found["effect"] == -2.0 and found["arms"] == "sdt, trt"


def why(tables, name):
    (found,) = missing_claims(tables).query("claim == @name")["why"].unique()
    return found


def test_claims_whose_tables_or_arms_are_absent_are_left_out_and_named():
    tables = make.accuracy(levels({"sdt": 80.0, "tet": 82.0}))
    assert set(judge(tables)["claim"]) == {"accuracy-tet-sdt", "gap-tet-sdt"}
    missing = missing_claims(tables)
    assert len(missing) == len(CLAIMS) - 2 and set(missing["claim"]) == NAMED.keys() - set(judge(tables)["claim"])
    assert why(tables, "accuracy-trt-tet") == "table 'metrics' has no arm 'trt'"
    assert why(tables, "flat-tet-sdt-trace") == "there is no table 'hessian_trace'"
    assert why({"metrics": tables["metrics"].drop(columns="test_accuracy")}, "accuracy-tet-sdt") == (
        "table 'metrics' has no column 'test_accuracy'"
    )
    relaxed = {"eigenvalues": make.eigenvalue(levels({"sdt": 1.0}), forward="relaxed")["eigenvalues"]}
    assert "no forward 'spiking' of arm 'sdt'" in why(relaxed, "flat-tet-sdt-eigenvalue").replace("tet", "sdt")
    assert len(missing_claims({})) == len(CLAIMS) and judge({}).empty


def test_only_the_last_epoch_counts_for_a_value_at_the_end():
    early = make.eigenvalue(levels({"sdt": 1.0, "tet": 9.0}), epoch=3)["eigenvalues"]
    late = make.eigenvalue(levels({"sdt": 2.0, "tet": 1.0}))["eigenvalues"]
    found = row({"eigenvalues": pd.concat([early, late])}, "flat-tet-sdt-eigenvalue")
    assert found["effect"] == pytest.approx(relative(2, 1))
    assert why({"fisher": make.first_share(levels({"sdt": 0.5}))["fisher"]}, "centroid-falls-sdt").startswith(
        "table 'fisher' has one epoch"
    )


def test_seeds_are_left_out_with_their_reason():
    tables = make.eigenvalue(levels({"sdt": 3.0, "tet": 1.0}, noise=0.01))
    table = tables["eigenvalues"]
    table.loc[(table["seed"] == 1) & (table["arm"] == "tet"), "converged"] = False
    table.loc[(table["seed"] == 2) & (table["arm"] == "sdt"), "eigenvalue"] = math.nan
    table.loc[(table["seed"] == 3) & (table["arm"] == "sdt"), "epoch"] = 5
    table = table[~((table["seed"] == 4) & (table["arm"] == "tet"))]
    found = row({"eigenvalues": table}, "flat-tet-sdt-eigenvalue")
    assert found["n_seeds"] == 4 and found["verdict"] == "supported"
    for said in (
        "seed 1 (tet: the eigenvalue did not converge)",
        "seed 2 (sdt: not finite)",
        "seed 3 (sdt: ends at epoch 5 of 9)",
        "seed 4 (tet: no such seed)",
    ):
        assert said in found["note"]


@pytest.mark.parametrize(
    ("tables", "change", "name", "said"),
    [
        (make.rise, lambda t: t[(t["seed"] > 0) | (t["alpha"] != 0)], "flat-tet-sdt-slice", "has no point"),
        (make.rise, lambda t: t[(t["seed"] > 0) | (t["alpha"] >= 0)], "flat-tet-sdt-slice", "on both sides of 0"),
        (make.rise, lambda t: t.assign(finite=(t["seed"] > 0) | (t["alpha"] != 0.5)), "flat-tet-sdt-slice",
         "not finite"),
        (make.gradient_ratio, lambda t: t.assign(norm=t["norm"] * ((t["seed"] > 0) | (t["timestep"] > 1))),
         "gradients-tet-sdt", "gradient is zero"),
        (make.accuracy_kept, lambda t: t[(t["seed"] > 0) | (t["timestep"] != 4)], "scalability-tet-sdt",
         "trained at 4"),
        (make.fall, lambda t: t[(t["seed"] > 0) | (t["epoch"] != 5)], "centroid-falls-sdt", "at 2 of 3 epochs"),
        (make.fall, lambda t: t.assign(trace=t["trace"] * ((t["seed"] > 0) | (t["epoch"] != 5))), "centroid-falls-sdt",
         "an epoch has no centroid"),
        (make.first_share, lambda t: t.assign(trace=t["trace"] * (t["seed"] > 0)), "first-share-trt-sdt",
         "all traces are 0"),
    ],
)  # fmt: skip
def test_a_measurement_that_cannot_be_read_leaves_its_seed_out(tables, change, name, said):
    ((key, table),) = tables(levels({"sdt": 0.3, "tet": 0.4, "trt": 0.5}, noise=0.01)).items()
    found = row({key: change(table)}, name)
    assert found["n_seeds"] == 7 and "seed 0" in found["note"] and said in found["note"]


def test_the_rise_is_read_where_a_shorter_slice_ends():
    tables = make.rise(levels({"sdt": 4.0, "tet": 2.0}))
    tables["landscape"]["alpha"] *= 0.4  # reaches 0.4, where the loss has risen four times as far as at the middle
    assert row(tables, "flat-tet-sdt-slice")["effect"] == pytest.approx(relative(2, 1))


def test_groups_are_judged_apart_and_corrected_together():
    few, many = (
        make.accuracy(levels({"sdt": 80.0, "tet": 80.0 + gain}, noise=0.3), group=group)["metrics"]
        for group, gain in (("150 examples", 2.0), ("1000 examples", -2.0))
    )
    alone, both = judge({"metrics": few}), judge({"metrics": pd.concat([few, many])})
    verdicts = both.query("claim == 'accuracy-tet-sdt'").set_index("group")["verdict"].to_dict()
    assert verdicts == {"150 examples": "supported", "1000 examples": "contradicted"}
    first = alone.iloc[0], both.iloc[0]
    assert first[0]["p"] == first[1]["p"] and first[1]["p_corrected"] == pytest.approx(2 * first[0]["p_corrected"])
    assert set(missing_claims({"metrics": pd.concat([few, many])})["group"]) == {"150 examples", "1000 examples"}


def test_one_seed_decides_nothing_but_shows_its_effect():
    found = judge(make.accuracy(levels({"sdt": 80.0, "tet": 90.0}, seeds=[0])))
    assert set(found["verdict"]) == {"undecided"} and found["low"].isna().all()
    assert found["effect"].iloc[0] == pytest.approx(10.0)


def test_a_whole_study_without_effects_supports_nothing():
    equal = levels(dict.fromkeys((*ALL_ARMS, "switch", "tit"), 0.5), noise=0.1, seed=3)
    makers = (make.accuracy, make.eigenvalue, make.trace, make.rise, make.first_share, make.gradient_ratio)
    tables = dict(itertools.chain.from_iterable(maker(equal).items() for maker in makers))
    found = judge(tables).query("rule == 'more'")
    assert len(found) > 20 and not (found["verdict"] == "supported").any()


def test_the_effect_table_has_all_units_on_one_axis():
    tables = make.accuracy(levels({"sdt": 80.0, "tet": 82.0, "tit": 81.9, "trt": 70.0}, noise=0.02))
    tables |= make.eigenvalue(levels({"sdt": 2.0, "tet": 1.0}, noise=0.01)) | eigenslices(1.0, 1.0)
    judged = judge(tables)
    found = effect_table(judged).set_index("claim")
    assert "curvature" not in found.index and len(found) == len(judged) - 1
    source = judged.set_index("claim").loc["flat-tet-sdt-eigenvalue"]
    for column in ("effect", "low", "high"):
        assert found.loc["flat-tet-sdt-eigenvalue", column] == pytest.approx(source[column] / 0.1)
    assert found.loc["accuracy-tet-sdt", "effect"] == pytest.approx(2.0 / 0.5, abs=0.2)
    assert found.loc["tit-accuracy", ["nothing", "enough"]].tolist() == [-1, -1]
    assert found.loc["accuracy-tet-sdt", ["nothing", "enough"]].tolist() == [0, 1]
    order = found["verdict"].map(["supported", "undecided", "contradicted"].index).to_numpy()
    assert (np.diff(order) >= 0).all() and {"supported", "contradicted"} <= set(found["verdict"])
    assert all((np.diff(rows["effect"]) <= 0).all() for _, rows in found.groupby("verdict"))
    assert effect_table(judge({})).empty


def test_a_measurement_that_is_there_twice_is_refused():
    table = make.eigenvalue(levels({"sdt": 2.0, "tet": 1.0}))["eigenvalues"]
    said = "table 'eigenvalues' of arm '...' has seed 0, epoch 9, rank 2 twice; give each measurement once"
    with pytest.raises(ValueError, match=said):
        judge({"eigenvalues": pd.concat([table, table])})


@pytest.mark.parametrize("column", ["arm", "group", "seed"])
def test_a_table_of_no_study_is_refused(column):
    table = make.trace(levels({"sdt": 2.0}))["hessian_trace"].drop(columns=column)
    with pytest.raises(ValueError, match=f"table 'hessian_trace' has no column '{column}'; give the tables of a study"):
        judge({"hessian_trace": table})
    assert judge({"notes": table}).empty  # tables that no claim needs are not looked at
