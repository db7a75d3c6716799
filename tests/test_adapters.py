"""Networks of other libraries and by hand: they give the logits of their own loop, and every probe takes them as
they are and leaves them as they were."""

import foreign_networks as foreign
import networks
import oracles
import pytest
import torch
from foreign_networks import NETWORKS, Transposing, made, streams
from spikingjelly.activation_based import functional, layer, neuron
from test_temporal import Careful, same, snapshot
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


class Calls:
    """Counts the uses of a model's first layer with weights; planted, it raises at the n-th."""

    def __init__(self, model, planted=None):
        self.count, self.planted = 0, planted
        first = next(
            m for m in model.modules() if next(m.parameters(recurse=False), None) is not None and not is_root(m)
        )
        self.handle = first.register_forward_pre_hook(self)

    def __call__(self, module, args):
        self.count += 1
        if self.count == self.planted:
            raise KeyError("planted")


def is_root(module):
    return isinstance(module, foreign.Plain | networks.Recurrent)


def finds(result):
    """Whether it has numbers that are not all zero."""
    values = result.table.drop(columns=["norm_spatial", "stderr"], errors="ignore").select_dtypes("float")
    return len(values) and values.notna().any().all() and any(float(values[c].abs().max()) > 0 for c in values)


@pytest.mark.parametrize("probe", PROBES)
def test_every_probe_takes_every_network_and_leaves_it_untouched(probed, probe):
    """Also where the network fails in the middle of the measurement."""
    name, model, inputs, labels = probed
    before, calls = snapshot(model), Calls(model)
    if name == "recurrent" and probe in NEED_LAYERS:
        calls.handle.remove()
        sentence = rf"no spiking layers \(modules with a surrogate_function or spike_grad\).* {probe} .*; (call|put)"
        with pytest.raises(ValueError, match=sentence):
            PROBES[probe](model, [(inputs, labels)])
        assert same(before, snapshot(model))
        return
    result = PROBES[probe](model, [(inputs, labels)])
    calls.handle.remove()
    assert finds(result)
    assert same(before, snapshot(model))
    planted = Calls(model, planted=calls.count - 1)
    before = snapshot(model)
    with pytest.raises(KeyError, match="planted"):
        PROBES[probe](model, [(inputs, labels)])
    assert same(before, snapshot(model))
    planted.handle.remove()


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


def precise(name):
    """In float64 and eval mode, but for snnTorch, whose surrogates emit float32; and the error to allow."""
    model, inputs, labels = made(name)
    if name.startswith("snntorch"):
        return model.eval(), inputs, labels, 1e-4
    return model.double().eval(), inputs.double(), labels, 1e-9


@pytest.mark.parametrize("name", NETWORKS)
def test_fisher_trace_is_that_of_a_loop_over_examples(name):
    model, inputs, labels, error = precise(name)
    result = probes.fisher_trace(model, [(inputs, labels)])
    assert result.settings["looped_layers"] == (["leak"] if name == "recurrent" else [])
    assert (result.settings["looped_share"] > 0) == (name == "recurrent")
    own = next((name for name, _ in model.named_parameters(recurse=False)), "")
    found = result.table.set_index(["layer", "timestep"])["trace"]
    expected = oracles.fisher_traces(model, inputs, labels)
    assert len(found) == len(expected) + result.settings["num_steps"]
    for (where, t), values in expected.items():
        assert found[where or own, t] == pytest.approx(sum(values) / len(labels), rel=error, abs=error / 100), (
            where,
            t,
        )


@pytest.mark.parametrize("name", ["learnable leak", "own surrogate", "plain", "recurrent", "snntorch recurrent"])
def test_curvature_is_that_of_the_dense_hessian(name):
    model, inputs, labels, error = precise(name)
    batches = [(inputs, labels)]
    dense = oracles.dense_hessian(model, batches, SDT()).double()
    assert float((dense - dense.T).abs().max()) <= error
    values = torch.linalg.eigvalsh((dense + dense.T) / 2).flip(0)
    found = probes.hessian_eigenvalues(model, batches, SDT(), k=3, tol=1e-5).table
    assert found["converged"].all() and values[0] > 0.1
    assert found["eigenvalue"].to_numpy() == pytest.approx(values[:3].numpy(), rel=10 * error + 1e-8, abs=1e-5)
    trace = probes.hessian_trace(model, batches, SDT(), num_probes=200).table.iloc[0]
    assert abs(trace["trace"] - float(dense.trace())) <= 4 * trace["stderr"]


@pytest.mark.parametrize("name", ["spiking_vgg", "sew_resnet", "spikformer"])
def test_eigenvectors_of_the_model_zoo_satisfy_their_equation(name):
    """H v = lambda v with H v differentiated twice through SpikingJelly's own neurons, in float64."""
    model, inputs, labels, _ = precise(name)
    result, vectors = probes.hessian_eigenvectors(model, [(inputs, labels)], SDT(), k=1, tol=1e-4)
    value = result.table["eigenvalue"][0]
    params = dict(model.named_parameters())
    gradient = torch.autograd.grad(SDT()(model(inputs), labels, params), list(params.values()), create_graph=True)
    inner = sum((g * vectors[0][n]).sum() for g, n in zip(gradient, params, strict=True))
    product = torch.autograd.grad(inner, list(params.values()))
    residual = (
        sum(float((h - value * vectors[0][n]).square().sum()) for h, n in zip(product, params, strict=True)) ** 0.5
    )
    assert result.table["converged"].all() and value > 0.01
    assert residual <= 1.1e-4 * value


@pytest.mark.parametrize("name", NETWORKS)
def test_timestep_accuracy_is_that_of_a_plain_loop(name):
    model, inputs, labels, error = precise(name)
    table = probes.timestep_accuracy(model, [(inputs, labels)]).table
    logits = model(inputs).detach()
    for t, row in enumerate(table.itertuples(), 1):
        right, loss = 0, 0.0
        for n, label in enumerate(labels):
            mean = logits[:t, n].sum(0) / t
            right += int(mean.argmax() == label)
            loss -= float(mean.log_softmax(0)[label])
        assert (row.timestep, row.accuracy) == (t, pytest.approx(right / len(labels)))
        assert row.loss == pytest.approx(loss / len(labels), rel=error)


def test_firing_rates_and_gradient_norms_are_those_of_a_plain_loop():
    """Of the network by hand: its spikes recorded, its currents made leaves."""
    model, inputs, labels, _ = precise("plain")
    seen = []
    handle = model.spikes.register_forward_hook(lambda m, args, spikes: seen.append((args[0], spikes)))
    logits = model(inputs)
    handle.remove()
    rates = probes.spiking_activity(model, [(inputs, labels)]).table.query("layer == 'spikes'")["firing_rate"]
    assert rates.tolist() == pytest.approx([spikes.mean().item() for _, spikes in seen])
    currents = torch.autograd.grad(nn.functional.cross_entropy(logits.mean(0), labels), [x for x, _ in seen])
    norms = probes.temporal_gradient_norms(model, [(inputs, labels)], SDT()).table["norm"]
    assert norms.tolist() == pytest.approx([float(g.flatten(1).norm(dim=1).sum()) for g in currents])


def test_the_model_zoo_as_it_comes():
    """SpikingJelly's own factory, 11 million weights, as it is imported."""
    from spikingjelly.activation_based.model import sew_resnet

    torch.manual_seed(0)
    net = sew_resnet.sew_resnet18(cnf="ADD", spiking_neuron=neuron.IFNode, num_classes=foreign.CLASSES, v_threshold=0.3)
    model, inputs, labels = from_spikingjelly(net, num_steps=2), foreign.images()[:2], torch.tensor([0, 3])
    before = snapshot(model)
    result = probes.fisher_trace(model, [(inputs, labels)])
    assert result.settings["looped_layers"] == [] and finds(result)
    assert finds(probes.temporal_gradient_norms(model, [(inputs, labels)], SDT()))
    assert same(before, snapshot(model))


class Mistaken(foreign.Plain):
    """The hand-written network with one classic mistake."""

    def __init__(self, mistake):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            super().__init__()
            self.batch_norm, self.careful, self.spare = nn.BatchNorm1d(4), Careful(), nn.Linear(2, 2)
        self.mistake, self.calls = mistake, 0
        self.requires_grad_(mistake != "frozen")
        self.batch_norm.requires_grad_(mistake == "train-mode BN")
        self.spare.requires_grad_(mistake == "unused")

    def forward(self, inputs):
        self.calls += 1
        logits = super().forward(inputs)
        return {
            "no reset": lambda: logits + self.calls,
            "swapped": lambda: logits.transpose(0, 1),
            "no time": lambda: logits.mean(0),
            "no classes": lambda: logits.argmax(-1),
            "other T": lambda: logits[: 1 + self.calls % 2],
            "probabilities": lambda: logits.softmax(-1),
            "random": lambda: logits + torch.rand_like(logits),
            "train-mode BN": lambda: self.train().batch_norm(logits.flatten(0, 1)).view_as(logits),
            "surrogate in training only": lambda: self.careful(logits),
        }.get(self.mistake, lambda: logits)()


MISTAKES = {
    "no reset": "state is carried over between calls; reset it at the start of forward, or wrap the network with from_",
    "swapped": r"time and batch are swapped: return logits\.transpose\(0, 1\)",
    "no time": r"returned shape \(\d, 4\); a temporal model returns logits \(T, N, C\): .* before any mean over time",
    "no classes": r"returned shape \(2, \d\); a temporal model returns logits \(T, N, C\): one row of C logits for each",
    "other T": "timesteps, and . when called again on the same inputs; let T depend on nothing but their shape",
    "probabilities": r"returned probabilities \(each row sums to 1\) where logits are expected; return what the softmax is",
    "random": "depend on the random state even in eval mode; remove the noise",
    "train-mode BN": "batch norm 'batch_norm' uses the statistics of the batch; let it use running statistics in eval mode",
    "frozen": r"Every parameter of the model is frozen \(requires_grad=False\)|: every parameter has requires_grad=False",
    "surrogate in training only": "in eval mode, but it does in training mode, so a spiking layer loses its surrogate gradient",
}
BATCH = [(streams(2, 5, 5), torch.tensor([0, 1, 2]))]


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("probe", PROBES)
def test_every_probe_says_which_mistake_was_made(probe, mistake):
    model = Mistaken(mistake)
    before = snapshot(model)
    with pytest.raises(ValueError, match=MISTAKES[mistake]):
        PROBES[probe](model, BATCH)
    assert same(before, snapshot(model))


@pytest.mark.parametrize("probe", PROBES)
def test_every_probe_names_unused_parameters(probe):
    sentence = (
        r"No gradient reaches 2 parameters \(spare\.weight, spare\.bias\) from the logits, .* so they count as zero"
    )
    with pytest.warns(UserWarning, match=sentence):
        result = PROBES[probe](Mistaken("unused"), BATCH)
    if probe == "fisher_trace":
        assert (result.table.query("layer == 'spare'")["trace"] == 0).all()


@pytest.mark.parametrize("probe", PROBES)
def test_frozen_parameters_are_left_out_and_named_in_the_settings(probe):
    """Without a warning: to freeze a part is no mistake."""
    result = PROBES[probe](Mistaken(""), BATCH)
    if "params" in result.settings:
        assert result.settings["frozen_parameters"] == [
            f"{name}.{kind}" for name in ("batch_norm", "spare") for kind in ("weight", "bias")
        ]
    assert "spare" not in set(result.table.get("layer", []))
    assert "frozen_parameters" not in PROBES[probe](made("plain")[0], [made("plain")[1:]]).settings


@pytest.mark.parametrize("probe", [name for name in PROBES if name != "spiking_activity"])  # which needs no labels
def test_every_probe_says_which_labels_do_not_fit(probe):
    model, inputs, labels = made("plain")
    for wrong, sentence in (
        (labels + 1, r"has labels from 1 to 4, but the model has 4 classes; give labels from 0 to 3\."),
        (labels - 100, r"has labels from -100 to -97, but the model has 4 classes"),
        (labels.float(), r"Batch 0 has labels of type torch\.float32; give class numbers of type torch\.int64\."),
        (nn.functional.one_hot(labels), r"Batch 0 has labels of shape \(3, 4\); give one class number each, \(N,\)\."),
    ):
        with pytest.raises(ValueError, match=sentence):
            PROBES[probe](model, [(inputs, wrong)])


@pytest.mark.parametrize("probe", PROBES)
def test_every_probe_says_that_batches_are_no_pairs(probe):
    model, inputs, labels = made("plain")
    for wrong in ((inputs, labels), [inputs], [(inputs, labels, labels)], [(inputs.numpy(), labels)]):
        with pytest.raises(
            ValueError, match=r"^Batch 0 is no pair of tensors; give a list of \(inputs, labels\) or a Data"
        ):
            PROBES[probe](model, wrong)


@pytest.mark.parametrize("probe", PROBES)
def test_every_probe_says_that_inputs_have_another_type(probe):
    model, inputs, labels = made("plain")
    with pytest.raises(
        ValueError, match=r"weights are torch\.float32 but the inputs torch\.float64, .*give inputs\.to"
    ):
        PROBES[probe](model, [(inputs.double(), labels)])


@pytest.mark.parametrize("probe", [name for name in PROBES if not name.startswith("hessian")])
def test_streams_of_other_length_in_a_later_batch(probe):
    """Where a probe reads timesteps it says so; a loss alone may be taken over any T."""
    model, inputs, labels = made("plain")
    batches = [(inputs, labels), (inputs[:, :1], labels)]
    if probe == "loss_slice":
        assert finds(PROBES[probe](model, batches))
        return
    with pytest.raises(
        ValueError, match="The model returned 1 timesteps where it returned 2 before; give streams of one"
    ):
        PROBES[probe](model, batches)


@pytest.mark.parametrize("probe", [name for name in PROBES if name.startswith("hessian")])
def test_a_surrogate_that_cannot_be_differentiated_again_is_refused(probe):
    """torch would take its slope for a constant and say nothing."""

    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return (x >= 0).to(x)

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, g):
            return g * (1 - ctx.saved_tensors[0].abs()).clamp_min(0)

    sentence = r"surrogate gradient of layer 'net\.1' cannot be differentiated again, which .*; write its backward"
    net = nn.Sequential(layer.Linear(6, 8), neuron.LIFNode(surrogate_function=Once.apply), layer.Linear(8, 4))
    with pytest.raises(ValueError, match=sentence):
        PROBES[probe](from_spikingjelly(net), [(streams(6), torch.tensor([0, 1, 2]))])
    hidden = made("plain")
    hidden[0].spikes = type("Hidden", (nn.Module,), {"forward": lambda self, x: Once.apply(x)})()
    with pytest.warns(UserWarning, match=r"curvature operator is not symmetric .* missing \(once_differentiable\)"):
        PROBES[probe](hidden[0], [hidden[1:]])


@pytest.mark.parametrize("name", NETWORKS)
def test_no_alarm_for_networks_that_are_right(name):
    """Whatever their mode, with one example or some, one timestep, or silent."""
    model, inputs, _ = made(name)
    for training in (True, False):
        assert check_temporal(model.train(training), inputs) == check_temporal(model, inputs[:1]) == 2
        assert check_temporal(model, 0 * inputs) == check_temporal(model, inputs[:1].expand_as(inputs)) == 2
    if inputs.shape[1] == 2 and getattr(model, "num_steps", None) is None:
        assert check_temporal(model, inputs[:, :1]) == 1


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


def test_a_network_that_loops_itself_or_needs_a_wrapper_is_told_so():
    snn = pytest.importorskip("snntorch")
    looping, inputs = foreign.Looping(snn), streams(6)
    with pytest.raises(
        ValueError, match=r"returned shape \(\d, 2, 2, 4\).*; its own forward runs over time, so say with takes"
    ):
        check_temporal(from_snntorch(ByImage(looping), num_steps=2), inputs[:, 0])
    with pytest.raises(
        ValueError, match=r"returned tuple; .*; wrap a network of SpikingJelly or snnTorch with from_spik"
    ):
        check_temporal(looping, inputs.transpose(0, 1))


class ByImage(nn.Module):
    """Shows a static (N, F) for two timesteps itself."""

    def __init__(self, looping):
        super().__init__()
        self.looping = looping

    def forward(self, x):
        return self.looping(x.expand(2, *x.shape))[1][:, :2]


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
