"""Values-only neurons: the same bits as the originals, and the originals where gradients are wanted."""

import networks
import pytest
import torch
from spikingjelly.activation_based import neuron, surrogate

from snn_probe.neurons.values_only import values_only
from snn_probe.temporal import probing


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("tau", "decay_input"), [(2.0, True), (2.0, False), (1.7, True), (1.7, False), (None, None)])
@pytest.mark.parametrize("reset", [None, 0.0, 0.3, -0.1])
def test_same_bits(dtype, tau, decay_input, reset):
    options = dict(v_threshold=0.7, v_reset=reset, surrogate_function=surrogate.ATan(), step_mode="m")
    node = neuron.IFNode(**options) if tau is None else neuron.LIFNode(tau=tau, decay_input=decay_input, **options)
    torch.manual_seed(0)
    x = torch.randn(9, 4001, dtype=dtype)
    x[2, 5], x[3, 6], x[4, 7] = float("nan"), float("inf"), -float("inf")
    with torch.no_grad():
        node.reset()
        expected, v = node(x), node.v
        node.reset()
        with values_only(node):
            found = node(x)
        fine = x.isfinite().all(0)  # after an infinity the state may be NaN or not; who uses the spikes says so
        assert torch.equal(found[:, fine], expected[:, fine]) and torch.equal(node.v[fine], v[fine])
        assert 0.02 < found.nanmean() < 0.98 and "forward" not in node.__dict__


def test_with_gradients_the_original_runs():
    model = networks.convolutional(4)
    x, _ = networks.examples(3, 4)
    expected = model(x)
    with values_only(model):
        found = model(x)
    assert torch.equal(found, expected) and found.requires_grad


@pytest.mark.parametrize("num_steps", [None, 4])
def test_networks(num_steps):
    model = networks.convolutional(num_steps)
    x, _ = networks.examples(8, num_steps)
    with probing(model), torch.no_grad():
        expected = model(x)
        with values_only(model):
            assert torch.equal(model(x), expected)
