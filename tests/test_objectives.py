"""SDT, TET, TRT against the formulas as printed, and the penalty's closed form."""

import math

import oracles
import pytest
import torch

from snn_probe.objectives import OBJECTIVES, SDT, TET, TRT, penalized, trt_penalty

T, N, C = 5, 7, 4


@pytest.fixture
def logits():
    return torch.randn(T, N, C, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def labels():
    return torch.randint(0, C, (N,), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def params():
    g = torch.Generator().manual_seed(2)
    shapes = {
        "conv.weight": (3, 2, 3, 3), "bn.weight": (3,), "bn.bias": (3,), "fc.weight": (4, 12), "fc.bias": (4,),
        "head.weight": (4, 4),
    }  # fmt: skip
    return {n: torch.randn(s, generator=g, dtype=torch.float64).mul(0.4).requires_grad_() for n, s in shapes.items()}


def test_sdt_is_the_cross_entropy_of_the_mean_logits(logits, labels):
    assert SDT()(logits, labels, None).item() == pytest.approx(oracles.sdt(logits, labels).item(), rel=1e-12)


@pytest.mark.parametrize(("lam", "phi"), [(0.05, 1.0), (0.0, 1.0), (0.3, 0.5), (1.0, 2.0)])
def test_tet_is_as_printed(logits, labels, lam, phi):
    found = TET(mse_weight=lam, mse_target=phi)(logits, labels, None)
    assert found.item() == pytest.approx(oracles.tet(logits, labels, lam, phi).item(), rel=1e-12)


@pytest.mark.parametrize("eta", [0.05, 0.0, 1.0])
@pytest.mark.parametrize("penalize", ["non_bias", "hidden_weights"])
def test_trt_is_as_printed(logits, labels, params, eta, penalize):
    names = {
        "non_bias": ["conv.weight", "bn.weight", "fc.weight", "head.weight"],
        "hidden_weights": ["conv.weight", "fc.weight"],
    }[penalize]
    objective = TRT(strength=1e-2, decay=0.7, epsilon=1e-3, mse_weight=eta, penalize=penalize)
    expected = oracles.trt(logits, labels, [params[n] for n in names], 1e-2, 0.7, 1e-3, eta)
    assert objective(logits, labels, params).item() == pytest.approx(expected.item(), rel=1e-12)


def test_defaults_are_the_papers():
    assert TET() == TET(mse_weight=0.05, mse_target=1.0)
    assert TRT() == TRT(strength=1e-5, decay=0.25, epsilon=1e-5, mse_weight=0.05, penalize="non_bias")
    assert {name: kind().name for name, kind in OBJECTIVES.items()} == {"sdt": "sdt", "tet": "tet", "trt": "trt"}


def test_sdt_never_exceeds_tet_without_mse(labels):
    for seed in range(50):
        g = torch.Generator().manual_seed(seed)
        logits = 3 * torch.randn(T, N, C, generator=g, dtype=torch.float64)
        assert SDT()(logits, labels, None) <= TET(mse_weight=0.0)(logits, labels, None) + 1e-12


@pytest.mark.parametrize("decay", [0.25, 0.5, 2.0])
@pytest.mark.parametrize("steps", [1, 2, 6, 10])
def test_penalty_and_its_gradient_equal_the_loop(params, decay, steps):
    weights = list(params.values())
    expected = oracles.trt_penalty([p for n, p in params.items() if "bias" not in n], steps, 1e-2, decay, 1e-3)
    found = trt_penalty(params, steps, strength=1e-2, decay=decay, epsilon=1e-3)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    truth = torch.autograd.grad(expected, weights, allow_unused=True)
    mine = torch.autograd.grad(found, weights, allow_unused=True)
    for a, b in zip(truth, mine, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.allclose(a, b, rtol=1e-12, atol=1e-16)


def test_penalty_counts_time_from_zero_by_hand():
    """w = 2, T = 2, lambda = 1, delta = ln 3, eps = 0: terms 4/1 and 4/(1 + 2*2); mean 2.4.

    Gradient (1/2) 2 [2 + (2 + 2*2)/25] = 2.24.
    """
    w = torch.tensor([[2.0]], dtype=torch.float64, requires_grad=True)
    found = trt_penalty({"w": w}, 2, strength=1.0, decay=math.log(3), epsilon=0.0)
    assert found.item() == pytest.approx(2.4, rel=1e-14)
    assert torch.autograd.grad(found, w)[0].item() == pytest.approx(2.24, rel=1e-14)


def test_penalty_without_decay_is_plain_l2(params):
    squares = sum((p**2).sum() for n, p in params.items() if "bias" not in n)
    assert trt_penalty(params, 6, strength=0.3, decay=0.0, epsilon=1e-5).item() == pytest.approx(0.3 * squares.item())


@pytest.mark.parametrize(("w", "factor"), [(0.001, 0.999), (0.1, 0.911), (1.0, 0.585)])
def test_penalty_relative_to_l2_is_what_the_settings_give(w, factor):
    """CIFAR settings (delta .25, T 6): the ratio to plain L2 that was computed apart from this code."""
    p = {"w": torch.tensor([[w]], dtype=torch.float64)}
    ratio = trt_penalty(p, 6, strength=1.0, decay=0.25, epsilon=1e-5).item() / w**2
    assert ratio == pytest.approx(factor, abs=6e-4)


def test_penalty_may_be_differentiated_twice(params):
    weights = {n: p for n, p in params.items() if "bias" not in n}
    args = dict(strength=1e-2, decay=0.5, epsilon=1e-3)

    def second(value):
        gradients = torch.autograd.grad(value, list(weights.values()), create_graph=True)
        return torch.autograd.grad(sum((g * torch.cos(w)).sum() for g, w in zip(gradients, weights.values(), strict=True)),
                                   list(weights.values()))  # fmt: skip

    mine = second(trt_penalty(weights, 4, **args))
    truth = second(oracles.trt_penalty(list(weights.values()), 4, 1e-2, 0.5, 1e-3))
    for a, b in zip(mine, truth, strict=True):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-14)


def test_penalty_handles_large_odd_and_strided_weights():
    g = torch.Generator().manual_seed(0)
    big = torch.randn(70_001, generator=g, dtype=torch.float64)
    strided = torch.randn(40, 30, 5, 5, generator=g, dtype=torch.float64).to(memory_format=torch.channels_last)
    weights = {"big": big.requires_grad_(), "strided": strided.requires_grad_(), "empty": torch.zeros(0, 3)}
    found = trt_penalty(weights, 6, strength=0.1, decay=0.25, epsilon=1e-5)
    expected = oracles.trt_penalty([big, strided], 6, 0.1, 0.25, 1e-5)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    pairs = zip(torch.autograd.grad(found, [big, strided]), torch.autograd.grad(expected, [big, strided]), strict=True)
    assert all(torch.allclose(a, b, rtol=1e-12) for a, b in pairs)


def test_penalty_gradient_scales_and_repeats(params):
    weights = [p for n, p in params.items() if "bias" not in n]
    found = trt_penalty(params, 4, strength=0.1, decay=0.5, epsilon=1e-5)
    once = torch.autograd.grad(3 * found, weights, retain_graph=True)
    again = torch.autograd.grad(found, weights)
    assert all(torch.allclose(a, 3 * b, rtol=1e-14) for a, b in zip(once, again, strict=True))
    found = trt_penalty(params, 4, strength=0.1, decay=0.5, epsilon=1e-5)
    for gradient in torch.autograd.grad(found, weights, retain_graph=True):
        gradient.zero_()  # the receiver's own
    assert all(
        torch.allclose(a, b, rtol=1e-12) for a, b in zip(torch.autograd.grad(found, weights), again, strict=True)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_penalty_at_extreme_rates(dtype):
    """e^{delta t} beyond any float: those terms vanish beside t = 0, and nothing overflows."""
    w = torch.tensor([[0.0, 1e-20, 0.3, -1e4]], dtype=dtype, requires_grad=True)
    found = trt_penalty({"w": w}, 50, strength=1.0, decay=15.0, epsilon=1e-5)
    assert found.item() == pytest.approx(1e8 / 50, rel=1e-5)
    (gradient,) = torch.autograd.grad(found, w)
    assert gradient.flatten().tolist() == pytest.approx([0.0, 4e-22, 0.012, -400.0], rel=1e-4, abs=1e-19)


def test_penalized_weights(params):
    assert list(penalized(params, "non_bias")) == ["conv.weight", "bn.weight", "fc.weight", "head.weight"]
    assert list(penalized(params, "hidden_weights")) == ["conv.weight", "fc.weight"]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: TET(mse_weight=1.5), r"mse_weight is 1\.5; give a number from 0 to 1\."),
        (lambda: TET(mse_target=math.nan), r"mse_target is nan; give any finite number\."),
        (lambda: TRT(strength=-1), r"strength is -1; give a finite number of at least 0\."),
        (lambda: TRT(decay="fast"), r"decay is 'fast'; give a finite number of at least 0\."),
        (lambda: TRT(epsilon=math.inf), r"epsilon is inf; give a finite number of at least 0\."),
        (lambda: TRT(penalize="all"), r"penalize is 'all'; give one of 'non_bias', 'hidden_weights'\."),
        (lambda: trt_penalty({}, 4, strength=1, decay=1, epsilon=0), r"selects none of the parameters \(none given\)"),
        (lambda: trt_penalty({"w": torch.ones(2, 2)}, 0, strength=1, decay=1, epsilon=0), r"num_steps is 0; give T"),
    ],
)
def test_bad_hyperparameters_get_one_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_bad_tensors_get_one_sentence(logits, labels):
    with pytest.raises(ValueError, match=r"logits have shape \(7, 4\); objectives take \(T, N, C\)"):
        SDT()(logits[0], labels)
    with pytest.raises(ValueError, match=r"labels have shape \(3,\).*give one label per example: \(7,\)\."):
        TET()(logits, labels[:3])
    with pytest.raises(ValueError, match="TRT penalises weights but params is empty"):
        TRT()(logits, labels, {})
