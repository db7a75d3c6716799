"""Batch norm in closed form: PyTorch's bits, its first and second derivatives, and which layers are left alone."""

import copy

import pytest
import torch
from spikingjelly.activation_based import layer
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call

from snn_probe.neurons.single_step import running
from snn_probe.probes.eval_norms import eval_norms

CASES = {
    "images": (lambda: nn.BatchNorm2d(3), (4, 3, 2, 2)),
    "images over time": (lambda: layer.BatchNorm2d(3, step_mode="m"), (2, 2, 3, 2, 3)),
    "features": (lambda: nn.BatchNorm1d(3), (4, 3)),
    "features over time": (lambda: layer.BatchNorm1d(3, step_mode="m"), (2, 4, 3)),
    "sequences over time": (lambda: layer.BatchNorm1d(2, step_mode="m"), (2, 2, 2, 3)),
    "volumes": (lambda: nn.BatchNorm3d(2), (2, 2, 2, 1, 2)),
}


def settled(make, dtype=torch.float64):
    torch.manual_seed(0)
    norm = make().to(dtype)
    for values in (norm.running_mean, norm.weight, norm.bias):
        nn.init.normal_(values)
    nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return norm.eval()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients_have_the_same_bits(case, dtype):
    make, shape = CASES[case]
    norm, x = settled(make, dtype), torch.randn(shape, dtype=dtype).requires_grad_()

    def run():
        y = norm(x)
        return y, *torch.autograd.grad(y.square().sum(), [x, norm.weight, norm.bias])

    expected = run()
    with running(eval_norms(norm)):
        assert "forward" in norm.__dict__
        found = run()
    assert "forward" not in norm.__dict__ and all(map(torch.equal, expected, found))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("wanted", ["x weight bias", "x", "weight", "x weight", "bias x"])
def test_second_derivatives_are_those_of_finite_differences(case, wanted):
    make, shape = CASES[case]
    norm = settled(make)
    values = {"x": torch.randn(shape, dtype=torch.float64), **{n: p.detach() for n, p in norm.named_parameters()}}

    def cubed(*given):
        now = {**values, **dict(zip(wanted.split(), given, strict=True))}
        x = now.pop("x")
        return functional_call(norm, now, (x,)) ** 3

    leaves = tuple(values[name].clone().requires_grad_() for name in wanted.split())
    with running(eval_norms(norm)):
        assert gradcheck(cubed, leaves) and gradgradcheck(cubed, leaves)


@pytest.mark.parametrize("case", CASES)
def test_directions_of_some_gradients_alone(case):
    """Of the weight's gradient alone, and of the bias's: nothing is said about the others."""
    make, shape = CASES[case]
    norm, x = settled(make), torch.randn(shape, dtype=torch.float64).requires_grad_()
    leaves = [x, norm.weight, norm.bias]

    def products():
        gradients = torch.autograd.grad(norm(x).pow(3).sum(), leaves, create_graph=True)
        return [
            g for one in gradients for g in torch.autograd.grad(one.pow(2).sum(), leaves, retain_graph=True)
        ]  # fmt: skip

    expected = products()
    with running(eval_norms(norm)):
        found = products()
    for a, b in zip(expected, found, strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-12 * float(a.abs().max()))


def test_a_large_mean_loses_no_more_digits_than_in_pytorch():
    norm = nn.BatchNorm2d(3).eval()
    norm.running_mean.fill_(1000.0)
    generator = torch.Generator().manual_seed(0)
    x, g, p = (torch.randn(shape, generator=generator) for shape in ((8, 3, 4, 4), (8, 3, 4, 4), (3,)))

    def product(norm, x, g, p):
        x, g = (x + 1000.0).requires_grad_(), g.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(norm(x), norm.weight, g, create_graph=True)
        return torch.autograd.grad(gradient, g, p)[0]

    exact = product(copy.deepcopy(norm).double(), (x + 1000.0).double() - 1000.0, g.double(), p.double())
    with running(eval_norms(norm)):
        found = product(norm, x, g, p)
    assert (found - exact).norm() < 1e-6 * exact.norm()


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm2d(3).train(),
        nn.BatchNorm2d(3, affine=False).eval(),
        nn.BatchNorm2d(3, track_running_stats=False).eval(),
        nn.InstanceNorm2d(3, affine=True, track_running_stats=True).eval(),
        layer.ThresholdDependentBatchNorm2d(1.0, 0.5, 3).eval(),
    ],
    ids=repr,
)
def test_which_layers_are_left_alone(norm):
    assert eval_norms(norm) == []


def test_wrong_axes_are_refused_as_before():
    norm = layer.BatchNorm2d(3, step_mode="m").eval()
    with running(eval_norms(norm)), pytest.raises(ValueError, match="expected"):
        norm(torch.randn(2, 3, 4, 4))
