"""Spikes pooled in the cache: the bits of neuron and pool one after the other, and only where nobody looks between."""

import networks
import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import nn

from snn_probe.neurons import multi_step
from snn_probe.neurons import values_only as module
from snn_probe.neurons.values_only import values_only
from snn_probe.temporal import probing


@pytest.fixture
def pooled(monkeypatch):
    """How many times spikes were pooled in blocks, as a list that grows."""
    calls = []
    original = module._pooled_spikes

    def counted(node, currents):
        calls.append(node)
        return original(node, currents)

    monkeypatch.setattr(module, "_pooled_spikes", counted)
    return calls


def pair(node=None, pool=None):
    node = node or neuron.LIFNode(tau=1.7, v_threshold=0.7, surrogate_function=surrogate.ATan(), step_mode="m")
    return nn.Sequential(node, pool or layer.AvgPool2d(2, step_mode="m"))


def both(net, x):
    """What the network gives and keeps, as written and as run for values only."""
    found = []
    with torch.no_grad():
        for run in (None, values_only):
            net[0].reset()
            if run is None:
                found.append((net(x), net[0].v))
            else:
                with run(net):
                    found.append((net(x), net[0].v))
    return found


ORDERS = {
    "contiguous": lambda x: x,
    "channels last": lambda x: x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3),
    "one step shown again": lambda x: x[0].expand_as(x),
    "one step, channels last": lambda x: x[0].to(memory_format=torch.channels_last).expand_as(x),
    "time inside": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
}


@pytest.mark.parametrize("block", [8, 100, 1 << 16])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("reset", [None, 0.0, 0.3])
def test_same_bits(order, dtype, reset, block, pooled, monkeypatch):
    monkeypatch.setattr(multi_step, "BLOCK", block)
    torch.manual_seed(0)
    x = ORDERS[order](torch.randn(5, 3, 4, 6, 10, dtype=dtype).add_(0.3))
    for node in (
        neuron.LIFNode(tau=1.7, v_threshold=0.7, v_reset=reset, decay_input=False, step_mode="m"),
        neuron.IFNode(v_threshold=0.7, v_reset=reset, step_mode="m"),
    ):
        (expected, v), (found, after) = both(pair(node), x)
        assert torch.equal(found, expected) and torch.equal(after, v)
        assert 0.1 < found.mean() < 0.9
    assert len(pooled) == (0 if order == "time inside" else 2)


def test_the_potential_is_carried_on(pooled):
    net = pair()
    x = torch.randn(6, 2, 3, 4, 4).add_(0.2)
    (expected, v), _ = both(net, x)
    net[0].reset()
    with torch.no_grad(), values_only(net):
        found = torch.cat([net(x[:2]), net(x[2:])])
    assert torch.equal(found, expected) and torch.equal(net[0].v, v) and len(pooled) == 3


@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (pair(), (3, 2, 3, 5, 4)),
        (pair(), (3, 2, 3, 4, 5)),
        (pair(pool=layer.AvgPool2d(3, step_mode="m")), (3, 2, 3, 6, 6)),
        (pair(pool=layer.MaxPool2d(2, step_mode="m")), (3, 2, 3, 4, 4)),
        (pair(pool=layer.AvgPool2d(2, padding=1, step_mode="m")), (3, 2, 3, 4, 4)),
        (pair(neuron.ParametricLIFNode(step_mode="m")), (3, 2, 3, 4, 4)),
        (pair(neuron.LIFNode(step_mode="m", store_v_seq=True)), (3, 2, 3, 4, 4)),
    ],
    ids=["odd height", "odd width", "3x3", "maxima", "padded", "learned leak", "stored potentials"],
)
def test_what_does_not_fit_runs_as_before(net, shape, pooled):
    (expected, v), (found, after) = both(net, torch.randn(shape).add_(0.3))
    assert torch.equal(found, expected) and torch.equal(after, v) and not pooled


@pytest.mark.parametrize("watched", [0, 1])
def test_who_looks_between_sees_the_spikes(watched, pooled):
    net, seen = pair(), []
    hook = (lambda module, args, out: seen.append(out)) if watched == 0 else (lambda module, args: seen.append(args[0]))
    handle = net[0].register_forward_hook(hook) if watched == 0 else net[1].register_forward_pre_hook(hook)
    (expected, _), (found, _) = both(net, torch.randn(3, 2, 3, 4, 4).add_(0.3))
    assert torch.equal(found, expected) and torch.equal(seen[0], seen[1]) and seen[1].shape[-1] == 4 and not pooled
    handle.remove()
    both(net, torch.randn(3, 2, 3, 4, 4))
    assert len(pooled) == 1


def test_who_looks_at_all_modules_sees_the_spikes(pooled):
    seen = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, args, out: seen.append(out.shape[-1]))
    try:
        both(pair(), torch.randn(3, 2, 3, 4, 4))
    finally:
        handle.remove()
    assert seen[: len(seen) // 2] == seen[len(seen) // 2 :] and 4 in seen and not pooled


def test_hooks_before_the_neuron_and_around_the_sequence_still_run(pooled):
    net, seen = pair(), []
    net[0].register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[-1]))
    net.register_forward_hook(lambda module, args, out: seen.append(out.shape[-1]))
    both(net, torch.randn(3, 2, 3, 4, 4))
    assert seen == [4, 2, 4, 2] and len(pooled) == 1


def test_a_hook_before_the_neuron_may_change_what_it_is_given(pooled):
    net = pair()
    net[0].register_forward_pre_hook(lambda module, args: (args[0][..., :3],))
    (expected, v), (found, after) = both(net, torch.randn(3, 2, 3, 4, 4).add_(0.3))
    assert found.shape[-1] == 1 and torch.equal(found, expected) and torch.equal(after, v) and not pooled


def test_a_sequence_takes_its_input_by_name():
    net, x = pair(), torch.randn(3, 2, 3, 4, 4)
    (expected, _), _ = both(net, x)
    net[0].reset()
    with torch.no_grad(), values_only(net):
        assert torch.equal(net(input=x), expected)


def test_a_forward_that_runs_step_by_step_after_all(pooled):
    net, x = pair(), torch.randn(3, 2, 3, 4, 4).add_(0.3)
    (expected, _), _ = both(net, x)
    net[0].reset()
    with torch.no_grad(), values_only(net):
        functional.set_step_mode(net, "s")
        found = torch.stack([net(step) for step in x])
    assert torch.equal(found, expected) and len(pooled) == 1


def test_a_module_that_stands_twice_is_paired_where_the_pool_follows(pooled):
    node, pool = neuron.IFNode(v_threshold=0.7, step_mode="m"), layer.AvgPool2d(2, step_mode="m")
    net = nn.Sequential(node, node, pool, pool)
    (expected, v), (found, after) = both(net, torch.randn(3, 2, 3, 8, 8).add_(0.3))
    assert torch.equal(found, expected) and torch.equal(after, v) and len(pooled) == 1


def test_reached_one_by_one_the_modules_are_as_before(pooled):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = pair()

        def forward(self, x):
            spikes = self.net[0](x)
            return self.net[1](spikes), spikes

    own, x = Own(), torch.randn(3, 2, 3, 4, 4).add_(0.3)
    with torch.no_grad():
        expected = own(x)
        own.net[0].reset()
        with values_only(own):
            found = own(x)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True)) and not pooled


def test_with_gradients_the_original_runs(pooled):
    net, x = pair(), torch.randn(3, 2, 3, 4, 4).add_(0.3).requires_grad_()
    with values_only(net):
        assert net(x).requires_grad and not pooled
    assert "forward" not in net.__dict__ and "forward" not in net[0].__dict__


def test_networks(pooled):
    model = networks.convolutional(4)
    x, _ = networks.examples(8, 4)
    with probing(model), torch.no_grad():
        expected = model(x)
        with values_only(model):
            assert torch.equal(model(x), expected)
    assert len(pooled) == 1
