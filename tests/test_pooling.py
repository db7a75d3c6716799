"""The pools that stand for PyTorch's: bits, derivatives of first and second order, and when they stand aside."""

import networks
import pytest
import torch
import torch.nn.functional as F
from spikingjelly.activation_based import layer
from torch import nn

from snn_probe.neurons.multi_step import fast_training
from snn_probe.neurons.pooling import fast_pools
from snn_probe.neurons.single_step import known_as_spikes, marked_as_spikes, running

SHAPES = [(3, 2, 4, 8, 8), (3, 2, 4, 7, 5), (2, 1, 1, 2, 2), (1, 2, 1, 3, 2), (2, 1, 1, 2, 48)]


def examples(shape, kind):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator)
    return marked_as_spikes((x > 0.5).float()) if kind == "spikes" else x


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["numbers", "spikes"])
def test_values_and_gradients_have_the_same_bits(shape, kind):
    pool, x = layer.AvgPool2d(2, step_mode="m"), examples(shape, kind)
    expected = F.avg_pool2d(x.flatten(0, 1), 2).unflatten(0, shape[:2])
    with running(fast_pools(pool)):
        assert known_as_spikes(x) == (kind == "spikes")
        assert torch.equal(pool(x), expected)
        assert torch.equal(pool(x.clone()), expected)  # a copy is not marked
        leaf = x.clone().requires_grad_()
        (found,) = torch.autograd.grad((pool(leaf) * expected).sum(), leaf)
    (plain,) = torch.autograd.grad((pool(leaf) * expected).sum(), leaf)
    assert torch.equal(found, plain) and "forward" not in pool.__dict__


@pytest.mark.parametrize("shape", SHAPES)
def test_all_derivatives_are_those_of_finite_differences(shape):
    pool = layer.AvgPool2d(2, step_mode="m")
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    with running(fast_pools(pool)):
        assert torch.autograd.gradcheck(pool, x)
        assert torch.autograd.gradgradcheck(lambda x: pool(x) ** 3, x)


def graph(result):
    return type(result.grad_fn).__name__


def test_spikes_that_were_changed_in_place_are_none():
    x = examples((1, 1, 1, 4, 4), "spikes")
    assert known_as_spikes(x)
    assert not known_as_spikes(x.mul_(0.3))


@pytest.mark.parametrize(
    ("pool", "shape"),
    [
        (layer.AvgPool2d(2), (2, 3, 4, 4)),
        (layer.AvgPool2d(2), (3, 4, 4)),
        (nn.AvgPool2d(2), (2, 3, 4, 4)),
        (layer.AvgPool2d((2, 2), (2, 2), (0, 0), step_mode="m"), (5, 2, 3, 4, 4)),
    ],
)
def test_which_pools_are_replaced(pool, shape):
    x = torch.randn(shape).requires_grad_()
    expected = pool(x)
    with running(fast_pools(pool)):
        found = pool(x)
    assert graph(found) == "_PoolBackward" and torch.equal(found, expected)


class Halved(layer.AvgPool2d):
    def forward(self, x):
        return 0.5 * super().forward(x)


@pytest.mark.parametrize(
    "pool",
    [
        layer.AvgPool2d(3),
        layer.AvgPool2d(2, stride=1),
        layer.AvgPool2d(2, padding=1),
        layer.AvgPool2d(2, ceil_mode=True),
        layer.AvgPool2d(2, divisor_override=3),
        layer.AvgPool2d((2, 1)),
        layer.MaxPool2d(2),
        Halved(2),
    ],
    ids=repr,
)
def test_which_pools_are_left_alone(pool):
    assert fast_pools(pool) == []


@pytest.mark.parametrize(
    "x",
    [
        torch.randn(2, 8, 4, 4).to(memory_format=torch.channels_last),
        torch.randn(2, 8, 4, 4, dtype=torch.bfloat16),
        torch.randn(2, 4, 4, 8).transpose(1, 3),
    ],
    ids=["channels last", "bfloat16", "strided"],
)
def test_what_pytorch_pools_better_it_does(x):
    pool, x = layer.AvgPool2d(2), x.requires_grad_()
    with running(fast_pools(pool)):
        found = pool(x)
    assert graph(found) != "_PoolBackward" and torch.equal(found, pool(x))


def test_products_in_less_than_full_precision_change_nothing():
    pool, x = layer.AvgPool2d(2), torch.randn(2, 3, 4, 4).requires_grad_()
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with running(fast_pools(pool)), torch.autocast("cpu", torch.bfloat16):
            found = pool(x)
        assert graph(found) == "_PoolBackward" and torch.equal(found, pool(x))
        (gradient,) = torch.autograd.grad(found.square().sum(), x)
        assert torch.equal(gradient, torch.autograd.grad(pool(x).square().sum(), x)[0])
    finally:
        torch.set_float32_matmul_precision(before)


def test_wrong_axes_are_refused_as_before():
    pool = layer.AvgPool2d(2, step_mode="m")
    with running(fast_pools(pool)), pytest.raises(ValueError, match=r"expected x with shape \[T, N, C, H, W\]"):
        pool(torch.randn(2, 3, 4, 4))


def test_what_a_pool_gives_may_be_changed_in_place():
    pool, x = layer.AvgPool2d(2), torch.randn(2, 3, 4, 4)
    spikes = (x > 0).float().requires_grad_()

    def run(x):
        y = nn.functional.relu(pool(x).add_(-0.1), inplace=True)
        return torch.autograd.grad(y.square().sum(), spikes, create_graph=True)[0]

    expected = run(spikes * 1)
    with running(fast_pools(pool)):
        found = run(marked_as_spikes(spikes * 1))
        found.detach().add_(0)
    assert torch.equal(found, expected)


def test_too_small_images_are_refused_as_before():
    pool = layer.AvgPool2d(2)
    with running(fast_pools(pool)), pytest.raises(RuntimeError, match="too small"):
        pool(torch.randn(2, 3, 1, 4))


def test_under_autocast_values_keep_their_dtype():
    pool, x = layer.AvgPool2d(2), examples((2, 3, 4, 4), "spikes")
    with running(fast_pools(pool)), torch.autocast("cpu", torch.bfloat16):
        assert pool(x).dtype == torch.float32


def test_in_inference_mode():
    model = networks.convolutional(None).eval()
    x, _ = networks.examples(4, None)
    expected = model(x)
    with torch.inference_mode():
        steps = model.unrolled(x)
        with fast_training(model):
            whole = model(x)
    assert torch.allclose(torch.stack(steps), expected) and torch.equal(whole, expected)


def test_a_training_step_has_the_same_bits():
    model = networks.convolutional(None)
    x, _ = networks.examples(4, None)

    def step():
        model.zero_grad()
        model(x).square().sum().backward()
        return [p.grad.clone() for p in model.parameters()]

    expected = step()
    pools = fast_pools(model)
    assert pools
    with running(pools):
        found = step()
    assert all(map(torch.equal, expected, found))
    with fast_training(model):
        assert "forward" in pools[0][0].__dict__
