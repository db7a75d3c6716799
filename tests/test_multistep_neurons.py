"""The training neurons give SpikingJelly's spikes and gradients, all timesteps at once, in any layout."""

from unittest import mock

import networks
import pytest
import torch
from spikingjelly.activation_based import neuron, surrogate

from snn_probe.neurons import multi_step as multistep_neurons
from snn_probe.neurons import single_step as neurons
from snn_probe.neurons.multi_step import fast_training

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6}  # of the largest gradient


def make(tau=2.0, decay_input=False, surrogate_function=None, **options):
    options |= {"surrogate_function": surrogate_function or surrogate.PiecewiseQuadratic(), "step_mode": "m"}
    return neuron.IFNode(**options) if tau is None else neuron.LIFNode(tau=tau, decay_input=decay_input, **options)


def currents(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).add(0.4).to(dtype)


def run(node, x, *, start=None, end_weight=0.0):
    """Spikes; gradients of a weighted sum of spikes and last potentials to the currents and the first potentials."""
    node.reset()
    x, leaves = x.detach().requires_grad_(), []
    if start is not None:
        leaves = [start.detach().clone().requires_grad_()]
        (node.v,) = leaves
    spikes = node(x)
    total = (spikes * currents(*x.shape, dtype=x.dtype, seed=1)).sum() + end_weight * node.v.square().sum()
    return spikes.detach(), torch.autograd.grad(total, [x, *leaves])


def compare(node, x, **options):
    expected = run(node, x, **options)
    assert 0.02 < expected[0].nanmean() < 0.98
    for compiling in (False, True):  # True: the form that torch.compile is given, here without it
        with fast_training(node), mock.patch("torch.compiler.is_compiling", return_value=compiling):
            assert "forward" in node.__dict__
            found = run(node, x, **options)
        assert "forward" not in node.__dict__
        assert torch.equal(found[0], expected[0])
        for mine, theirs in zip(found[1], expected[1], strict=True):
            assert mine.dtype == theirs.dtype
            assert (mine - theirs).abs().max() <= TOLERANCE[x.dtype] * theirs.abs().max()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("tau", "decay_input"), [(2.0, True), (2.0, False), (1.7, True), (1.7, False), (None, None)])
@pytest.mark.parametrize("detach_reset", [False, True])
@pytest.mark.parametrize("v_reset", [None, 0.0, 0.3, -0.1])
@pytest.mark.parametrize("kind", [surrogate.PiecewiseQuadratic, surrogate.Sigmoid, surrogate.ATan])
def test_every_option(dtype, tau, decay_input, detach_reset, v_reset, kind):
    node = make(tau, decay_input, kind(alpha=1.3), v_reset=v_reset, detach_reset=detach_reset, v_threshold=0.7)
    x = currents(6, 3, 101, dtype=dtype)
    compare(node, x)
    compare(node, x, start=currents(3, 101, dtype=dtype, seed=2), end_weight=0.3)


@pytest.mark.parametrize("name", neurons._STEPS)
def test_every_surrogate(name):
    compare(make(surrogate_function=getattr(surrogate, name)()), currents(5, 2, 60))


@pytest.mark.parametrize("block", [1, 7, 64, 10_000])
def test_blocks_of_neurons(block, monkeypatch):
    monkeypatch.setattr(multistep_neurons, "BLOCK", block)
    compare(make(1.7), currents(4, 3, 23), start=currents(3, 23, seed=2), end_weight=1.0)


LAYOUTS = {
    "channels last": lambda x: x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, x.shape[:2]),
    "one image at every step": lambda x: x[:1].expand(x.shape),
    "examples before time": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "every other column": lambda x: x[..., ::2],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout):
    x = LAYOUTS[layout](currents(4, 3, 5, 6, 8))
    compare(make(), x, start=currents(*x.shape[1:], seed=2), end_weight=1.0)


def test_channels_last_stays_channels_last():
    x = LAYOUTS["channels last"](currents(4, 3, 5, 6, 8)).requires_grad_()
    with fast_training(node := make()):
        spikes = node(x)
        (gradient,) = torch.autograd.grad(spikes.sum(), x)
    for tensor in (spikes, gradient):
        assert tensor.stride() == x.stride()
        assert tensor.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("compiling", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_potentials_and_derivatives_in_float32(dtype, compiling, monkeypatch):
    monkeypatch.setattr("torch.compiler.is_compiling", lambda: compiling)
    x, node = currents(6, 4, 500, dtype=dtype), make(1.7)
    expected = run(node, x.float())
    weights = currents(*x.shape, dtype=dtype, seed=1)
    leaf = x.clone().requires_grad_()
    with fast_training(node):
        node.reset()
        spikes = node(leaf)
        assert spikes.dtype == dtype and node.v.dtype == torch.float32
        assert torch.equal(spikes.float(), expected[0])
        (found,) = torch.autograd.grad(spikes, leaf, weights)
    leaf32 = x.float().requires_grad_()
    node.reset()
    (exact,) = torch.autograd.grad(node(leaf32), leaf32, weights.float())
    assert found.dtype == dtype
    assert (found.float() - exact).abs().max() <= torch.finfo(dtype).eps * exact.abs().max()


def test_state_is_carried_to_the_next_call_as_before():
    x, node = currents(8, 3, 50), make()
    whole = run(node, x)[0]
    node.reset()
    with fast_training(node):
        halves = torch.cat([node(x[:4]), node(x[4:])])
    assert torch.equal(halves, whole)


def test_without_gradients_and_with_values_that_are_not_finite():
    x, node = currents(4, 3, 50), make()
    x[1, 0, :3] = torch.tensor([float("nan"), float("inf"), -float("inf")])
    with torch.no_grad():
        expected = node(x)
        node.reset()
        with fast_training(node):
            found = node(x)
    assert torch.equal(found, expected) and not found.requires_grad


def test_only_the_last_potential_is_differentiated():
    node, x = make(), currents(4, 3, 9).requires_grad_()
    expected = torch.autograd.grad([node(x), node.v][1].sum(), x)[0]
    node.reset()
    with fast_training(node):
        found = torch.autograd.grad([node(x), node.v][1].sum(), x)[0]
    assert torch.allclose(found, expected, rtol=1e-12, atol=0) and expected.abs().max() > 0


def test_second_derivatives_are_refused():
    x = torch.ones(4, 2, 3, requires_grad=True)
    with fast_training(node := make()):
        spikes = node(x)
    with pytest.raises(RuntimeError, match="gives first derivatives only; take second derivatives outside"):
        torch.autograd.grad(spikes.sum(), x, create_graph=True)


class Mine(neuron.LIFNode):
    pass


class Steeper(surrogate.Sigmoid):
    pass


@pytest.mark.parametrize(
    "node",
    [
        Mine(step_mode="m"),
        neuron.ParametricLIFNode(step_mode="m"),
        neuron.LIFNode(step_mode="s"),
        neuron.LIFNode(step_mode="m", store_v_seq=True),
        make(surrogate_function=surrogate.Sigmoid(spiking=False)),
        make(surrogate_function=surrogate.DeterministicPass()),
        make(surrogate_function=Steeper()),
    ],
)
def test_others_are_left_alone(node):
    with fast_training(torch.nn.ModuleList([node, chosen := make()])):
        assert "forward" not in node.__dict__ and "forward" in chosen.__dict__


def test_restored_after_an_exception_and_when_nested():
    node = make()
    with pytest.raises(KeyError), fast_training(node):
        with fast_training(node):
            pass
        assert "forward" in node.__dict__
        raise KeyError
    assert "forward" not in node.__dict__


@pytest.mark.parametrize("num_steps", [None, 4])
def test_networks(num_steps):
    model = networks.convolutional(num_steps)
    x, labels = networks.examples(8, num_steps)
    params = dict(model.named_parameters())

    def logits_and_gradients():
        logits = model(x)
        loss = torch.nn.functional.cross_entropy(logits.mean(0), labels)
        return logits.detach(), torch.autograd.grad(loss, params.values())

    expected = logits_and_gradients()
    with fast_training(model):
        found = logits_and_gradients()
    assert torch.equal(found[0], expected[0])
    for mine, theirs in zip(found[1], expected[1], strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("node", [make(1.7, True), make(2.0), make(None)])
def test_the_call_of_the_fused_kernels(node):
    """Those run on CUDA, but the same function has a CPU side: arguments and results must fit."""
    x, start = currents(4, 3, 9, dtype=torch.float32), currents(3, 9, dtype=torch.float32, seed=2)
    node.v = start
    expected = node(x), node.v
    assert all(map(torch.equal, multistep_neurons._fused(node, x, start), expected))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cuda(dtype):
    x, node = currents(4, 3, 500, dtype=dtype), make()
    expected = run(node, x.float())
    with fast_training(node):
        spikes = run(node, x.cuda())[0]
    assert spikes.dtype == dtype and (spikes.cpu().float() != expected[0]).float().mean() < 1e-3
