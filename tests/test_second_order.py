"""The closed-form layers give SpikingJelly's spikes, gradients and Hessian-vector products; and leave no trace."""

import networks
import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import nn

from snn_probe.objectives import SDT
from snn_probe.parameters import flatten, trainable, unflatten
from snn_probe.probes.operator import spikes_as
from snn_probe.probes.second_order import second_order
from snn_probe.temporal import from_spikingjelly, probing

SURROGATES = [
    surrogate.PiecewiseQuadratic, surrogate.PiecewiseExp, surrogate.Sigmoid, surrogate.SoftSign, surrogate.ATan,
    surrogate.NonzeroSignLogAbs, surrogate.Erf, surrogate.PiecewiseLeakyReLU, surrogate.SquarewaveFourierSeries,
    surrogate.S2NN, surrogate.QPseudoSpike, surrogate.LeakyKReLU, surrogate.LogTailedReLU, surrogate.Rect,
    surrogate.SuperSpike,
]  # fmt: skip
CHARGES = [("if", None), ("lif", True), ("lif", False)]


def make(kind, decay_input, surrogate_function, **options):
    options = dict(v_threshold=0.7, surrogate_function=surrogate_function, step_mode="m", **options)
    return neuron.IFNode(**options) if kind == "if" else neuron.LIFNode(tau=1.7, decay_input=decay_input, **options)


def derivatives(node, potential=None):
    """Spikes, the gradient of a loss that is curved in spikes and last potential, its product with a vector; and the
    gradient once more, not to be differentiated again. With ``potential`` the layer starts there, differentiably."""
    g = torch.Generator().manual_seed(0)
    x, weights, *u = (torch.randn(6, 3, 30, generator=g, dtype=torch.float64) for _ in range(4))
    inputs = [(x + 0.3).requires_grad_()] + ([] if potential is None else [potential.clone().requires_grad_()])

    def run():
        functional.reset_net(node)
        if potential is not None:
            node.v = inputs[1]
        spikes = node(inputs[0])
        return spikes, (spikes * weights).sum() + (spikes.square() * weights.flip(0)).sum() + node.v.pow(3).sum()

    spikes, loss = run()
    gradients = torch.autograd.grad(loss, inputs, create_graph=True)
    product = torch.autograd.grad(gradients, inputs, [u[0], u[1][0]][: len(inputs)])
    return spikes, *gradients, *product, *torch.autograd.grad(run()[1], inputs)


def check(node, **options):
    expected = derivatives(node, **options)
    with second_order(node):
        assert "forward" in node.__dict__
        found = derivatives(node, **options)
    assert torch.equal(expected[0], found[0]) and 0.02 < (expected[0] != 0).double().mean() < 1.0 + 1e-9
    for a, b in zip(expected[1:], found[1:], strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", SURROGATES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("spiking", [True, False], ids=["spiking", "relaxed"])
def test_every_surrogate(kind, spiking):
    if kind is surrogate.SuperSpike and not spiking:
        pytest.skip("SpikingJelly gives it no primitive")
    function = kind()
    function.set_spiking_mode(spiking)
    check(make("lif", False, function))


@pytest.mark.parametrize(("kind", "decay_input"), CHARGES)
@pytest.mark.parametrize("reset", [None, 0.0, 0.3, -0.2])
@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("spiking", [True, False], ids=["spiking", "relaxed"])
def test_every_option(kind, decay_input, reset, detach, spiking):
    for function in (surrogate.PiecewiseQuadratic(alpha=0.8), surrogate.ATan(), surrogate.Sigmoid()):
        function.set_spiking_mode(spiking)
        check(make(kind, decay_input, function, v_reset=reset, detach_reset=detach))


def test_neurons_without_memory():
    """The smallest tau that SpikingJelly allows: a leak of 2e-16."""
    node = make("lif", False, surrogate.ATan())
    node.tau = 1.0 + 2**-52
    check(node)


@pytest.mark.parametrize(("kind", "decay_input"), CHARGES)
@pytest.mark.parametrize("reset", [None, 0.3])
def test_a_potential_that_is_differentiated(kind, decay_input, reset):
    start = torch.randn(3, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    check(make(kind, decay_input, surrogate.ATan(), v_reset=reset), potential=start)


def product(model, x, y, v):
    params = trainable(model)
    loss = SDT()(model(x), y)
    gradients = torch.autograd.grad(loss, list(params.values()), create_graph=True)
    pieces = torch.autograd.grad(gradients, list(params.values()), list(unflatten(v, params).values()))
    return flatten(dict(zip(params, pieces, strict=True)))


@pytest.mark.parametrize("num_steps", [None, 3])
@pytest.mark.parametrize("forward", ["spiking", "relaxed"])
def test_products_of_a_network(num_steps, forward):
    model = networks.convolutional(num_steps)
    x, y = networks.examples(4, num_steps)
    v = torch.randn(sum(p.numel() for p in model.parameters()), dtype=torch.float64)
    with probing(model), spikes_as(model, forward):
        expected = product(model, x, y, v)
        with second_order(model):
            found = product(model, x, y, v)
    assert torch.allclose(expected, found, rtol=1e-12, atol=1e-12 * float(expected.abs().max()))
    assert expected.norm() > 0


def registered(run):
    """SpikingJelly's registered operators that ``run`` calls: the ones that choose a fused kernel on CUDA."""
    with torch.autograd.profiler.profile() as profile:
        run()
    return {event.name for event in profile.function_events if event.name.startswith("sj_")}


def nodes():
    class Mine(neuron.LIFNode):
        pass

    return [neuron.LIFNode(), neuron.IFNode(), Mine(), neuron.ParametricLIFNode(), neuron.QIFNode(), neuron.EIFNode(),
            neuron.LIFNode(store_v_seq=True)]  # fmt: skip


@pytest.mark.parametrize("node", nodes(), ids=lambda node: type(node).__name__)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_no_neuron_runs_a_registered_kernel(node, device):
    """In float32 SpikingJelly's neurons call operators that are dispatched to fused kernels on CUDA; here none does."""
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    net = nn.Sequential(layer.Linear(4, 5), node, layer.Linear(5, 3))
    model = from_spikingjelly(net, 3).to(device)
    x = torch.randn(2, 4, device=device) * 3
    expected = model(x)

    def products():
        found = model(x)
        assert torch.allclose(expected, found, rtol=1e-5, atol=1e-6)
        parameters = list(model.parameters())
        gradient = torch.autograd.grad(found.square().sum(), parameters, create_graph=True)
        torch.autograd.grad(sum(g.square().sum() for g in gradient), parameters, allow_unused=True)

    assert registered(products), "the test sees nothing"
    with second_order(model):
        assert not registered(products)


def test_reduced_precision_and_surrogates_are_put_back_also_after_an_exception():
    """A node keeps its choice of another implementation outside; inside it is the reference."""
    net = nn.ModuleList([neuron.LIFNode(step_mode="m"), neuron.ParametricLIFNode(step_mode="m")])
    before = [node.surrogate_function for node in net]
    names = [name for name, _ in net.named_modules()]
    for node in net:
        node._neuron_precision = (torch.float16, "fp16", "fp32")
    with pytest.raises(KeyError), second_order(net):
        assert [node._neuron_precision for node in net] == [None, None]
        assert "forward" in net[0].__dict__ and "forward" not in net[1].__dict__
        assert net[1].surrogate_function is not before[1]
        raise KeyError
    assert [node._neuron_precision for node in net] == [(torch.float16, "fp16", "fp32")] * 2
    assert [node.surrogate_function for node in net] == before
    assert [name for name, _ in net.named_modules()] == names
    assert not any("forward" in node.__dict__ for node in net)


def test_single_steps_and_learnable_surrogates_run_as_they_are():
    learnable = surrogate.ATan()
    learnable.alpha = nn.Parameter(torch.tensor(2.0))
    net = nn.ModuleList([neuron.LIFNode(step_mode="s"), neuron.LIFNode(step_mode="m", surrogate_function=learnable)])
    with second_order(net):
        assert not any("forward" in node.__dict__ for node in net)
