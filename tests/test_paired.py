"""Verdicts from few seeds: textbook numbers, limits, and simulated rates."""

import math

import numpy as np
import pytest
from scipy import stats

from snn_probe.verdicts.paired import LEVEL, Estimate, PerSeed, decide, difference, holm, paired, relative

SMALLEST = 0.5


def verdict(values, rule="more", smallest=SMALLEST):
    (decision,) = decide([(Estimate(tuple(values)), rule, smallest)])
    return decision


def test_the_interval_and_both_p_values_are_those_of_scipys_paired_t_test():
    first, second = np.array([3.1, 2.9, 4.0, 3.3, 3.6]), np.array([2.0, 2.6, 2.9, 3.1, 2.2])
    estimate = Estimate(tuple(first - second))
    expected = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert estimate.interval() == pytest.approx((expected.low, expected.high), rel=1e-12)
    assert estimate.p_above(0.0) == pytest.approx(stats.ttest_rel(first, second, alternative="greater").pvalue)
    assert estimate.p_above(0.7) == pytest.approx(stats.ttest_1samp(first - second, 0.7, alternative="greater").pvalue)
    assert estimate.p_below(0.7) == pytest.approx(stats.ttest_1samp(first - second, 0.7, alternative="less").pvalue)


def test_seeds_are_paired_by_number_and_the_others_named():
    first = PerSeed.of({2: 5.0, 0: 1.0, 1: 2.0, 3: math.nan}, "a")
    second = PerSeed.of({1: 0.5, 2: 1.0, 3: 1.0, 4: "did not converge"}, "b")
    both = paired(first, second, difference)
    assert both.by_seed == {1: 1.5, 2: 4.0} and both.arms == "a - b"
    assert both.left_out == {
        0: "b: no such seed", 3: "a: not finite", 4: "a: no such seed; b: did not converge",
    }  # fmt: skip


def test_an_effect_that_is_not_finite_leaves_its_seed_out():
    zero = PerSeed.of({0: 0.0, 1: 1.0}, "a")
    assert paired(zero, zero, relative).by_seed == {1: 0.0}
    assert paired(zero, zero, relative).left_out == {0: "not finite"}


def test_the_relative_difference_is_a_log_ratio_for_close_numbers_and_bounded_for_others():
    assert relative(1.01, 1.0) == pytest.approx(math.log(1.01), rel=1e-5)
    assert relative(1e9, 1e-9) == pytest.approx(2.0) and relative(-3.0, 2.0) == -2.0
    assert relative(2.0, 1.0) == -relative(1.0, 2.0) == pytest.approx(2 / 3)
    assert math.isnan(relative(0.0, 0.0))


def test_holms_adjustment_on_the_example_worked_by_hand():
    """Sorted .01 .02 .03 .04: times 4, 3, 2, 1, then never falling."""
    found = holm([0.03, 0.01, math.nan, 0.04, 0.02])
    np.testing.assert_allclose(found, [0.06, 0.04, math.nan, 0.06, 0.06])
    np.testing.assert_allclose(holm([0.6, 0.9]), [1.0, 1.0])
    assert holm([]).shape == (0,) and np.isnan(holm([math.nan])).all()


@pytest.mark.parametrize(
    ("values", "rule", "expected", "why"),
    [
        ([1.0, 1.1, 0.9, 1.0, 1.05], "more", "supported", ""),
        ([-1.0, -1.1, -0.9, -1.0, -1.05], "more", "contradicted", "reversed"),
        ([0.02, -0.03, 0.05, -0.01, 0.0], "more", "contradicted", "no effect of that size"),
        ([0.10, 0.11, 0.09, 0.10, 0.12], "more", "contradicted", "an effect, but smaller than matters"),
        ([0.30, 0.60, 0.25, 0.40, 0.50], "more", "undecided", "an effect, perhaps smaller than matters"),
        ([3.0, -2.0, 1.0, -4.0, 0.5], "more", "undecided", ""),
        ([0.3, 0.2, -0.1, 0.1, -0.2], "kept", "supported", ""),
        ([-0.7, -0.8, -0.75, -0.9, -0.8], "kept", "contradicted", "worse by more than that"),
        ([-0.7, -0.3, -0.1, -0.9, -0.6], "kept", "undecided", ""),
        ([0.7], "more", "undecided", "1 seed: no interval"),
        ([], "kept", "undecided", "0 seeds: no interval"),
    ],
)
def test_verdicts_and_their_reasons(values, rule, expected, why):
    found = verdict(values, rule)
    assert (found.verdict, found.why) == (expected, why)


def test_always_is_refuted_by_one_seed_and_needs_two_to_hold():
    allowed = -0.1
    assert verdict([0.0, 0.3, -0.1], "always", allowed).verdict == "supported"
    refuted = verdict([0.0, 0.3, -0.11], "always", allowed)
    assert (refuted.verdict, refuted.why) == ("contradicted", "fails in 1 of 3 seeds")
    assert verdict([-0.2], "always", allowed).verdict == "contradicted"
    assert verdict([0.2], "always", allowed).verdict == verdict([], "always", allowed).verdict == "undecided"
    assert math.isnan(refuted.p) and math.isnan(refuted.p_contrary_corrected)


def test_seeds_that_all_agree_have_no_interval_and_take_the_sign_test():
    """2^-5 = 0.031 is not below 2.5 %; 2^-6 is. Rounding is no spread."""
    estimate = Estimate((0.1 + 0.2, 0.3, 0.3, 0.3, 0.3))
    assert estimate.stderr == 0 and all(map(math.isnan, estimate.interval()))
    assert estimate.p_above(0.0) == 2**-5 and estimate.p_above(0.3) == estimate.p_below(0.3) == 1.0
    five, six = verdict([1.0] * 5), verdict([1.0] * 6)
    assert (five.verdict, six.verdict) == ("undecided", "supported")
    assert six.why == "all seeds give the same number: sign test"
    assert verdict([0.0] * 6).why == "no effect of that size; all seeds give the same number: sign test"


def test_other_claims_make_a_verdict_harder_and_the_reason_says_so():
    values = (0.8, 1.3, 0.7, 1.2, 1.5)
    assert verdict(values).verdict == "supported"
    noise = [(Estimate((1.0, -1.0, 0.4, -0.6, 0.3)), "more", SMALLEST)] * 40
    found = decide([(Estimate(values), "more", SMALLEST), *noise])[0]
    assert found.verdict == "undecided" and found.why == "supported if it were the only claim"
    assert found.p_corrected == pytest.approx(41 * found.p)
    counted = [(Estimate((1.0, 2.0)), "always", 0.0), (Estimate((1.0,)), "more", SMALLEST)] * 40
    assert decide([(Estimate(values), "more", SMALLEST), *counted])[0].verdict == "supported"  # these are not tested


@pytest.mark.parametrize("smallest", [0.0, -1.0, math.nan, math.inf])
def test_a_smallest_effect_must_be_positive(smallest):
    with pytest.raises(ValueError, match=r"decide: the smallest effect is .*; give a positive number"):
        verdict([1.0, 2.0], smallest=smallest)


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="decide: rule is 'less'; choose one of more, kept, always"):
        verdict([1.0, 2.0], rule="less")


# Simulated studies: 12 claims, 5 seeds; all claims of a study share half of their noise, as measures of one network do.

STUDIES, CLAIMS, SEEDS = 1000, 12, 5


def simulated(truth, rule="more", spread=1.0, seed=0):
    """Verdicts (studies, claims) of normal effects around ``truth`` (claims,)."""
    generator = np.random.default_rng(seed)
    shared = generator.standard_normal((STUDIES, 1, SEEDS))
    own = generator.standard_normal((STUDIES, CLAIMS, SEEDS))
    values = np.asarray(truth, dtype=float)[:, None] + spread * (shared + own) / math.sqrt(2)
    decisions = [decide([(Estimate(tuple(row)), rule, SMALLEST) for row in study]) for study in values.tolist()]
    return np.array([[d.verdict for d in study] for study in decisions])


def rate_at_most(happened, promised):
    """Whether the share of studies is at most the promised one, within 4 standard errors."""
    return happened.mean() <= promised + 4 * math.sqrt(promised * (1 - promised) / len(happened))


@pytest.mark.parametrize(("rule", "nothing"), [("more", 0.0), ("kept", -SMALLEST)])
def test_without_effects_a_study_supports_anything_at_most_at_the_promised_rate(rule, nothing):
    wrong = (simulated([nothing] * CLAIMS, rule) == "supported").any(1)
    assert rate_at_most(wrong, LEVEL) and wrong.any()


@pytest.mark.parametrize(("rule", "enough"), [("more", SMALLEST), ("kept", -SMALLEST)])
def test_with_effects_that_matter_a_study_contradicts_any_at_most_at_the_promised_rate(rule, enough):
    wrong = (simulated([enough] * CLAIMS, rule) == "contradicted").any(1)
    assert rate_at_most(wrong, LEVEL) and wrong.any()


def test_large_effects_are_found_and_do_not_loosen_the_rate_of_the_others():
    """Half of the claims at 20 standard deviations, a quarter without effect, a quarter just at the smallest one."""
    truth = [10.0] * 6 + [0.0] * 3 + [SMALLEST] * 3
    found = simulated(truth, spread=0.5)
    assert (found[:, :6] == "supported").mean() > 0.99
    wrong = (found[:, 6:9] == "supported").any(1) | (found[:, 9:] == "contradicted").any(1)
    assert rate_at_most(wrong, 2 * LEVEL)
    reversed_ = simulated([-10.0] * CLAIMS, spread=0.5, seed=1)
    assert (reversed_ == "contradicted").mean() > 0.99


def test_no_effect_is_called_null_when_seeds_agree_and_undecided_when_they_do_not():
    precise, vague = simulated([0.0] * CLAIMS, spread=0.02), simulated([0.0] * CLAIMS, spread=5.0)
    assert (precise == "contradicted").mean() > 0.99 and (vague == "undecided").mean() > 0.98
