"""Networks of other libraries and by hand: they give the logits of their own loop, and every probe takes them as
they are and leaves them as they were."""

import foreign_networks as foreign
import networks
import oracles
import pytest
import torch
from foreign_networks import NETWORKS, Transposing, made, streams
from spikingjelly.activation_based import functional, layer, neuron
from test_temporal import same, snapshot
from torch import nn

from snn_probe import probes
from snn_probe.objectives import SDT, TET
from snn_probe.temporal import check_temporal, from_snntorch, from_spikingjelly, spiking_layers, unrolled

PROBES = {
    "fisher_trace": lambda m, b: probes.fisher_trace(m, b, labels="sampled"),
    "hessian_eigenvalues": lambda m, b: probes.hessian_eigenvalues(m, b, SDT(), k=1, max_products=3),
    "hessian_trace": lambda m, b: probes.hessian_trace(m, b, SDT(), num_probes=2),
    "hessian_density": lambda m, b: probes.hessian_density(m, b, TET(), num_probes=1, num_steps=2, operator="ggn"),
    "loss_slice": lambda m, b: probes.loss_slice(m, b, [SDT()], alphas=(0.0, 0.5)),
    "spiking_activity": lambda m, b: probes.spiking_activity(m, b),
    "temporal_gradient_norms": lambda m, b: probes.temporal_gradient_norms(m, b, TET()),
    "timestep_accuracy": lambda m, b: probes.timestep_accuracy(m, b),
}
NEED_LAYERS = ("spiking_activity", "temporal_gradient_norms")  # modules with a surrogate, which "recurrent" has not


@pytest.fixture(scope="module", params=NETWORKS)
def probed(request):
    model, inputs, labels = made(request.param)
    parameter = next(model.parameters())
    parameter.grad = torch.ones_like(parameter)
    return request.param, model, inputs, labels


@pytest.mark.parametrize("probe", PROBES)
def test_every_probe_takes_every_network_and_leaves_it_untouched(probed, probe):
    name, model, inputs, labels = probed
    before = snapshot(model)
    if name == "recurrent" and probe in NEED_LAYERS:
        with pytest.raises(ValueError, match=r"no spiking layers \(modules with a surrogate_function or spike_grad\)"):
            PROBES[probe](model, [(inputs, labels)])
    else:
        result = PROBES[probe](model, [(inputs, labels)])
        values = result.table.drop(columns=["norm_spatial", "stderr"], errors="ignore").select_dtypes("float")
        assert len(values) and values.notna().any().all()
        assert any(float(values[column].abs().max()) > 0 for column in values)
    assert same(before, snapshot(model))


def test_each_network_keeps_the_contract_and_spikes(probed):
    _, model, inputs, _ = probed
    assert check_temporal(model, inputs, num_steps=2, num_classes=foreign.CLASSES) == 2
    rates = []
    for module in spiking_layers(model).values():
        module.register_forward_hook(lambda m, args, out: rates.append(out[0] if isinstance(out, tuple) else out))
    model(inputs)
    assert all(set(spikes.unique().tolist()) == {0.0, 1.0} for spikes in rates[:1])
    for module in spiking_layers(model).values():
        module._forward_hooks.clear()


@pytest.mark.parametrize("name", NETWORKS)
def test_steps_by_themselves_are_those_of_the_whole(name):
    model, inputs, _ = made(name)
    steps = unrolled(model.eval(), inputs)
    whole = model(inputs)
    if name in ("spikformer", "examples first", "snntorch recurrent", "plain", "recurrent"):
        assert steps is None
    else:
        assert torch.allclose(torch.stack(steps), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["learnable leak", "plain", "snntorch convolutional", "snntorch recurrent"])
def test_fisher_trace_is_that_of_a_loop_over_examples(name):
    model, inputs, labels = made(name)
    model.eval()
    table = probes.fisher_trace(model, [(inputs, labels)]).table
    for (where, t), values in oracles.fisher_traces(model, inputs, labels).items():
        found = table[(table["layer"] == (where or "threshold")) & (table["timestep"] == t)]["trace"].item()
        assert found == pytest.approx(sum(values) / len(labels), rel=1e-4, abs=1e-6), (where, t)


class Mistaken(networks.Recurrent):
    """The hand-written network with one classic mistake."""

    def __init__(self, mistake):
        super().__init__()
        self.mistake, self.calls = mistake, 0
        self.spikes = foreign.HandMade()  # so that no probe stops earlier for want of a spiking layer

    def forward(self, inputs):
        self.calls += 1
        logits = super().forward(inputs)
        return {
            "no reset": lambda: logits + self.calls,
            "swapped": lambda: logits.transpose(0, 1),
            "probabilities": lambda: logits.softmax(-1),
        }[self.mistake]()


MISTAKES = {
    "no reset": "state is carried over between calls",
    "swapped": r"time and batch are swapped: return logits\.transpose\(0, 1\)",
    "probabilities": "returned probabilities",
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("probe", PROBES)
def test_every_probe_says_which_mistake_was_made(probe, mistake):
    with pytest.raises(ValueError, match=MISTAKES[mistake]):
        PROBES[probe](Mistaken(mistake), [(streams(6), torch.tensor([0, 1, 2]))])


# SpikingJelly


def test_what_a_spikingjelly_network_takes():
    """One body, written four ways, gives the same logits."""
    net = Transposing()
    inputs = streams(6)
    functional.set_step_mode(net, "m")
    expected = net(inputs)
    functional.reset_net(net)
    for takes, inner in (("time first", net.body), ("examples first", net), ("timestep", net.body)):
        model = from_spikingjelly(inner, takes=takes)
        assert torch.allclose(model(inputs), expected, atol=1e-6), takes
        assert torch.allclose(model(inputs), expected, atol=1e-6), takes

    class Showing(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = net.body

        def forward(self, x):
            return self.body(x.expand(2, *x.shape))

    still = inputs[:, 0]
    shown = from_spikingjelly(Showing(), 2, takes="image")(still)
    for takes, inner in (("time first", net.body), ("examples first", net), ("timestep", net.body)):
        assert torch.allclose(from_spikingjelly(inner, 2, takes=takes)(still), shown, atol=1e-6), takes
    assert check_temporal(from_spikingjelly(Showing(), 2, takes="image"), still) == 2
    with pytest.raises(ValueError, match="returned 2 timesteps where T is 3"):
        check_temporal(from_spikingjelly(Showing(), 3, takes="image"), still)


def test_a_network_that_moves_time_itself_is_told_how_to_be_wrapped():
    with pytest.raises(ValueError, match=r"time and batch are swapped: .* takes='examples first' if its own forward"):
        check_temporal(from_spikingjelly(Transposing()), streams(6))


def test_bad_arguments():
    net = nn.Sequential(layer.Linear(2, 2), neuron.LIFNode())
    with pytest.raises(ValueError, match=r"takes is 'NT'; give .* one of timestep, time first, examples first, image"):
        from_spikingjelly(net, takes="NT")
    with pytest.raises(ValueError, match="takes is 'image' but num_steps is None; give num_steps=T"):
        from_spikingjelly(net, takes="image")
    with pytest.raises(ValueError, match=r"Layer '0' \(Thresh.*\) has no single-step mode; .*takes='time first'"):
        from_spikingjelly(nn.Sequential(layer.ThresholdDependentBatchNorm2d(1.0, 1.0, 3)), takes="timestep")
    with pytest.raises(ValueError, match=r"net \(Sequential\) has no snnTorch neuron; use from_spikingjelly"):
        from_snntorch(nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(ValueError, match=r"net is list; give a torch\.nn\.Module made of snnTorch neurons"):
        from_snntorch([])


# snnTorch


def leaky(**options):
    snn = pytest.importorskip("snntorch")
    return snn.Leaky(**{"beta": 0.8, "threshold": 0.3, **options})


def stepwise(**last):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), leaky(init_hidden=True), nn.Linear(8, 4), leaky(init_hidden=True, **last))


def by_hand(net, inputs):
    """snnTorch's own way: reset everything, then a loop."""
    from snntorch.utils import reset

    reset(net)
    steps = [net(inputs[:, t]) for t in range(inputs.shape[1])]
    reset(net)
    return steps


def test_snntorch_logits_are_those_of_its_own_loop():
    net, inputs = stepwise(output=True), streams(6)
    spikes, membrane = (torch.stack(part) for part in zip(*by_hand(net, inputs), strict=True))
    assert spikes.any() and not torch.equal(spikes, membrane)
    for readout, expected in (("spikes", spikes), ("membrane", membrane), (None, membrane)):
        net(3 * inputs[:, 0])  # leaves membrane potentials behind
        model = from_snntorch(net, readout=readout)
        assert torch.equal(model(inputs), expected) and torch.equal(model(inputs), expected)
    still = inputs[:, 0]
    repeated = still.unsqueeze(1).repeat(1, 5, 1)
    assert torch.equal(from_snntorch(net, num_steps=5)(still), from_snntorch(net)(repeated))
    net = stepwise()
    assert torch.equal(from_snntorch(net)(inputs), torch.stack(by_hand(net, inputs)))


def test_loops_of_the_network_itself():
    snn = pytest.importorskip("snntorch")
    torch.manual_seed(0)
    looping, inputs = foreign.Looping(snn), streams(6)
    expected = looping(inputs.transpose(0, 1))
    assert torch.equal(from_snntorch(looping, takes="time first")(inputs), expected[1])
    assert torch.equal(from_snntorch(looping, takes="time first", readout="spikes")(inputs), expected[0])

    class ExamplesFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.looping = looping

        def forward(self, x):
            return self.looping(x.transpose(0, 1))[1]

    assert torch.equal(from_snntorch(ExamplesFirst(), takes="examples first")(inputs), expected[1])


def test_states_and_graphs_of_neurons_are_put_back_and_those_of_others_not_touched():
    model, other, inputs = from_snntorch(stepwise(output=True)), stepwise(), streams(6)
    other(inputs[:, 0])
    states = {name: buffer.clone() for name, buffer in other.named_buffers()}
    before = snapshot(model)
    model(inputs).sum().backward()
    model.zero_grad()
    assert same(before, snapshot(model))
    assert all(buffer.grad_fn is None for buffer in model.buffers())
    assert all(torch.equal(buffer, states[name]) for name, buffer in other.named_buffers())


@pytest.mark.parametrize("kind", ["Lapicque", "Alpha", "Synaptic", "RSynaptic", "SLSTM", "Leaky"])
def test_other_neurons(kind):
    snn = pytest.importorskip("snntorch")
    options = {
        "Lapicque": {"beta": 0.8},
        "Alpha": {"alpha": 0.9, "beta": 0.8},
        "Synaptic": {"alpha": 0.9, "beta": 0.8},
        "RSynaptic": {"alpha": 0.9, "beta": 0.8, "linear_features": 5},
        "SLSTM": {"input_size": 5, "hidden_size": 5},
        "Leaky": {"beta": 0.8, "reset_mechanism": "zero", "spike_grad": snn.surrogate.fast_sigmoid()},
    }[kind]
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(6, 5), getattr(snn, kind)(**options, threshold=0.1, init_hidden=True), nn.Linear(5, 4)
    )
    model, inputs = from_snntorch(net), streams(6)
    before = snapshot(model)
    assert check_temporal(model, inputs) == 2
    assert list(spiking_layers(model)) == ["net.1"]
    assert torch.equal(model(inputs), torch.stack(by_hand(net, inputs)))
    probes.temporal_gradient_norms(model, [(inputs, torch.tensor([0, 1, 2]))], SDT())
    assert same(snapshot(model)[1], before[1])


def test_snntorch_without_a_reset_is_caught_and_the_adapter_named():
    class Forgot(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = stepwise()

        def forward(self, x):
            return torch.stack([self.net(step) for step in x.unbind(1)])

    with pytest.raises(ValueError, match=r"state is carried over between calls; reset it .* or from_snntorch"):
        check_temporal(Forgot(), streams(6))


def test_what_snntorch_networks_may_not_do():
    pytest.importorskip("snntorch")
    with pytest.raises(ValueError, match=r"readout is 'mem'; give membrane, spikes or None"):
        from_snntorch(stepwise(), readout="mem")
    with pytest.raises(ValueError, match=r"readout is 'membrane', but the network returned one tensor, .* output=True"):
        from_snntorch(stepwise(), readout="membrane")(streams(6))
    net = stepwise()
    net.append(type("Listed", (nn.Module,), {"forward": lambda self, x: [x]})())
    with pytest.raises(ValueError, match=r"The network returned list; return a tensor of logits, or tensors \(spikes"):
        from_snntorch(net)(streams(6))
    with pytest.raises(ValueError, match=r"inputs have shape \(3, 6\); streams are \(N, T, \.\.\.\)"):
        from_snntorch(stepwise())(streams(6)[:, 0])
    relaxed = from_snntorch(stepwise(output=True))
    with pytest.raises(
        ValueError, match=r"forward='relaxed' needs surrogates with a primitive function; the model has no"
    ):
        probes.hessian_trace(relaxed, [(streams(6), torch.tensor([0, 1, 2]))], SDT(), num_probes=2, forward="relaxed")


def test_the_hand_written_network_is_the_one_of_the_other_tests():
    assert isinstance(made("recurrent")[0], networks.Recurrent)
