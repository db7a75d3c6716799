"""Convolutions for curvature: PyTorch's bits, first and second derivatives, and which layers are left alone."""

import pytest
import torch
from spikingjelly.activation_based import layer
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call

from snn_probe.neurons.single_step import running
from snn_probe.probes.convolutions import twice_differentiable

CASES = {
    "images": (lambda: nn.Conv2d(2, 3, 3, padding=1), (2, 2, 4, 3)),
    "images over time": (lambda: layer.Conv2d(2, 2, 2, step_mode="m", bias=False), (2, 2, 2, 3, 3)),
    "strides and dilation": (lambda: nn.Conv2d(2, 2, (2, 3), (2, 1), (1, 2), (1, 2)), (2, 2, 4, 3)),
    "groups": (lambda: nn.Conv2d(4, 6, 2, groups=2), (2, 4, 3, 3)),
    "sequences": (lambda: nn.Conv1d(2, 3, 2, stride=2), (3, 2, 5)),
    "sequences over time": (lambda: layer.Conv1d(2, 3, 3, padding=1, step_mode="m"), (2, 2, 2, 4)),
    "volumes": (lambda: nn.Conv3d(1, 2, 2), (2, 1, 2, 3, 2)),
}


def made(case, dtype=torch.float64):
    make, shape = CASES[case]
    torch.manual_seed(0)
    return make().to(dtype), torch.randn(shape, dtype=dtype)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients_have_the_same_bits(case, dtype):
    conv, x = made(case, dtype)
    leaves = [x.requires_grad_(), *conv.parameters()]

    def run():
        y = conv(x)
        return y, *torch.autograd.grad(y.square().sum(), leaves)

    expected = run()
    with running(twice_differentiable(conv)):
        assert "forward" in conv.__dict__
        found = run()
    assert "forward" not in conv.__dict__ and all(map(torch.equal, expected, found))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("wanted", ["x weight bias", "x", "weight", "bias", "x weight", "x bias"])
def test_second_derivatives_are_those_of_finite_differences(case, wanted):
    conv, x = made(case)
    values = {"x": x, **{name: p.detach() for name, p in conv.named_parameters()}}
    names = [name for name in wanted.split() if name in values]
    if not names:
        pytest.skip("has no bias")

    def cubed(*given):
        now = {**values, **dict(zip(names, given, strict=True))}
        x = now.pop("x")
        return functional_call(conv, now, (x,)) ** 3

    leaves = tuple(values[name].clone().requires_grad_() for name in names)
    with running(twice_differentiable(conv)):
        assert gradcheck(cubed, leaves) and gradgradcheck(cubed, leaves)


@pytest.mark.parametrize("case", CASES)
def test_directions_of_some_gradients_alone(case):
    conv, x = made(case)
    leaves = [x.requires_grad_(), *conv.parameters()]

    def products():
        gradients = torch.autograd.grad(conv(x).pow(3).sum(), leaves, create_graph=True)
        return [g for one in gradients for g in torch.autograd.grad(one.pow(2).sum(), leaves, retain_graph=True)]

    expected = products()
    with running(twice_differentiable(conv)):
        found = products()
    for a, b in zip(expected, found, strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-12 * float(a.abs().max()))


class Doubled(nn.Conv2d):
    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(2, 3, 3, padding="same"),
        nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"),
        nn.ConvTranspose2d(2, 3, 3),
        Doubled(2, 3, 3),
    ],
    ids=repr,
)
def test_which_layers_are_left_alone(conv):
    assert twice_differentiable(conv) == []


def test_wrong_axes_are_refused_as_before():
    conv = layer.Conv2d(2, 3, 3, step_mode="m")
    with running(twice_differentiable(conv)), pytest.raises(ValueError, match="expected x with shape"):
        conv(torch.randn(2, 2, 4, 4))
