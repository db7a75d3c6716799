"""Every probe on residual networks, held against slow computations."""

import oracles
import pytest
import torch
import torch.nn.functional as F
from test_models import CLASSES, inputs, settled
from torch import nn

from snn_probe import probes
from snn_probe.models import MODELS
from snn_probe.neurons.lif import KIM, Neuron
from snn_probe.neurons.values_only import values_only
from snn_probe.objectives import SDT
from snn_probe.temporal import spiking_layers

NETWORKS = ["resnet19", "sew-resnet34"]
LABELS = torch.tensor([2, 0, 5, 1])


@pytest.fixture(scope="module", params=[(n, s) for n in NETWORKS for s in (3, None)], ids=str)
def probed(request):
    name, num_steps = request.param
    return settled(name, num_steps), inputs(name, num_steps), LABELS


def tabled(result, column, layer):
    table = result.table[result.table["layer"] == layer].sort_values("timestep")
    return table[column].to_numpy()


def test_fisher_trace_is_that_of_a_loop_over_examples(probed):
    model, x, y = probed
    result = probes.fisher_trace(model, [(x, y)])
    expected = oracles.fisher_traces(model, x, y)
    assert result.settings["looped_layers"] == [] and result.settings["one_graph_per_step"]
    assert set(result.table["layer"]) == {layer for layer, _ in expected} | {"all"}
    for (layer, t), values in expected.items():
        assert tabled(result, "trace", layer)[t - 1] == pytest.approx(sum(values) / 4, rel=1e-8, abs=1e-12), layer


def test_top_eigenvalue_is_that_of_the_matrix_on_the_read_out(probed):
    """The dense Hessian of the classifier's bias; and an eigenpair of the whole network, by its own residual."""
    model, x, y = probed
    found = probes.hessian_eigenvalues(model, [(x, y)], SDT(), k=1, params=lambda name: name == "net.classifier.bias")
    probability = model(x).mean(0).softmax(-1).detach()
    dense = (torch.diag_embed(probability) - probability.unsqueeze(2) * probability.unsqueeze(1)).mean(0)
    assert found.table["eigenvalue"][0] == pytest.approx(float(torch.linalg.eigvalsh(dense)[-1]), rel=1e-6)
    whole = probes.hessian_eigenvalues(model, [(x[:1], y[:1])], SDT(), k=1, max_products=3)
    assert whole.table["eigenvalue"].abs()[0] > 0 and whole.table["residual"].notna().all()


def test_activity_is_that_counted_by_convolutions_of_ones(probed):
    model, x, y = probed
    table = probes.spiking_activity(model, [(x, y)])
    seen = {}

    def keep(name):
        return lambda module, args, result: seen.__setitem__(name, (module, args[0].detach(), result.detach()))

    handles = [m.register_forward_hook(keep(n)) for n, m in model.named_modules() if n]
    model(x)
    for handle in handles:
        handle.remove()
    total, synaptic = torch.zeros(3, dtype=torch.float64), 0
    for name, (module, given, emitted) in seen.items():
        if name in spiking_layers(model):
            assert tabled(table, "firing_rate", name) == pytest.approx(emitted.flatten(1).mean(1).numpy())
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        nonzero = torch.ones_like(given) if name == "net.conv1" else (given != 0).double()
        if len(nonzero) == 1:
            nonzero = nonzero.expand(3, *nonzero.shape[1:])
        ones = torch.ones_like(module.weight)
        if isinstance(module, nn.Conv2d):
            reached = [F.conv2d(s, ones, stride=module.stride, padding=module.padding).sum() for s in nonzero]
        else:
            reached = [F.linear(s, ones).sum() for s in nonzero]
        synops = torch.stack(reached) / len(y)
        assert tabled(table, "synops", name) == pytest.approx(synops.detach().numpy()), name
        total, synaptic = total + synops.detach(), synaptic + 1
    assert tabled(table, "synops", "all") == pytest.approx(total.numpy())
    assert synaptic == {18: 22, 36: 37}[len(spiking_layers(model))] and table.settings["uncounted_layers"] == []


def test_temporal_gradients_are_those_of_added_currents(probed):
    model, x, y = probed
    result = probes.temporal_gradient_norms(model, [(x, y)], SDT())
    assert result.settings["spatial_left_out"] == {} and result.settings["unused_layers"] == []
    assert set(result.table["layer"]) == set(spiking_layers(model))
    for name in ("net.lif1", "net.stage2.block1.lif2", "net.stage3.block1.lif1"):
        node, expected = spiking_layers(model)[name], 0.0
        for n in range(len(y)):
            added = []

            def add(module, args, added=added):
                added.append(torch.zeros_like(args[0]).requires_grad_())
                return (args[0] + added[0],)

            handle = node.register_forward_pre_hook(add)
            loss = F.cross_entropy(model(x[n : n + 1]).mean(0), y[n : n + 1])
            handle.remove()
            (gradient,) = torch.autograd.grad(loss, added)
            expected = expected + gradient.flatten(1).norm(dim=1)
        assert tabled(result, "norm", name) == pytest.approx((expected / len(y)).numpy(), rel=1e-8)


def test_loss_slice_and_timestep_accuracy_read_the_logits(probed):
    model, x, y = probed
    point = probes.loss_slice(model, [(x, y)], [SDT()], alphas=(0.0,)).table
    logits = model(x).detach()
    assert point["loss"][0] == pytest.approx(float(F.cross_entropy(logits.mean(0), y)), rel=1e-9)
    steps = probes.timestep_accuracy(model, [(x, y)]).table
    for t in (1, 2, 3):
        right = (logits[:t].mean(0).argmax(-1) == y).double().mean()
        assert steps["accuracy"][t - 1] == pytest.approx(float(right))


@pytest.mark.parametrize("cell", [Neuron(), KIM, Neuron(leak=1.0, reset="soft")], ids=["tet", "kim", "if"])
@pytest.mark.parametrize("name", MODELS)
def test_values_only_gives_the_same_bits(name, cell):
    model, x = settled(name, neuron=cell).float(), inputs(name).float()
    with torch.no_grad():
        expected = model(x)
        with values_only(model):
            assert any("forward" in m.__dict__ for m in model.modules())
            assert torch.equal(model(x), expected)
    assert expected.shape == (3, 4, CLASSES)
