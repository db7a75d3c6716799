"""The closed-form neurons give SpikingJelly's spikes and gradients, step by step."""

import pytest
import torch
from spikingjelly.activation_based import functional, neuron, surrogate

from snn_probe.neurons.single_step import first_order

CASES = [
    lambda: neuron.LIFNode(decay_input=False, surrogate_function=surrogate.PiecewiseQuadratic()),
    lambda: neuron.LIFNode(tau=1.5, decay_input=True, v_reset=0.2, surrogate_function=surrogate.ATan()),
    lambda: neuron.LIFNode(tau=3.0, decay_input=False, v_reset=None, surrogate_function=surrogate.Sigmoid()),
    lambda: neuron.LIFNode(decay_input=False, detach_reset=True, v_threshold=0.7),
    lambda: neuron.IFNode(surrogate_function=surrogate.PiecewiseQuadratic()),
    lambda: neuron.IFNode(v_reset=None, detach_reset=True, v_threshold=0.5),
    lambda: neuron.LIFNode(decay_input=False, surrogate_function=surrogate.Sigmoid(spiking=False)),
]


def run(node, x, weights):
    spikes = torch.stack([node(step) for step in x])
    return spikes, torch.autograd.grad((spikes * weights).sum(), x)[0]


@pytest.mark.parametrize("make", CASES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_same_spikes_and_gradients(make, dtype):
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(6, 3, 50, generator=generator, dtype=dtype) + 0.4).requires_grad_()
    weights = torch.randn(6, 3, 50, generator=generator, dtype=dtype)
    node = make()
    expected = run(node, x, weights)
    functional.reset_net(node)
    with first_order(node):
        assert "forward" in node.__dict__
        found = run(node, x, weights)
    assert "forward" not in node.__dict__
    assert 0 < found[0].mean() < 1
    assert torch.equal(expected[0], found[0])
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    assert torch.allclose(expected[1], found[1], rtol=tolerance, atol=tolerance)


def test_second_derivatives_are_refused():
    node = CASES[0]()
    x = torch.ones(2, 3, requires_grad=True)
    with first_order(node):
        (gradient,) = torch.autograd.grad(node(x).sum(), x, create_graph=True)
        with pytest.raises(RuntimeError):
            torch.autograd.grad(gradient.sum(), x)


def test_other_neurons_and_subclasses_are_left_alone():
    class Mine(neuron.LIFNode):
        pass

    nodes = torch.nn.ModuleList([Mine(), neuron.ParametricLIFNode(), neuron.LIFNode(store_v_seq=True)])
    with first_order(nodes):
        assert not any("forward" in node.__dict__ for node in nodes)


def test_restored_after_an_exception():
    node = neuron.LIFNode()
    with pytest.raises(KeyError), first_order(node):
        raise KeyError
    assert "forward" not in node.__dict__
