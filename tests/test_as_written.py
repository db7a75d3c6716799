"""Layers and neurons that are not what their type says, as users change them: measured as they are, or refused."""

import pytest
import torch
import torch.nn.functional as F
from spikingjelly.activation_based import layer, neuron, surrogate
from torch import nn

from snn_probe.objectives import SDT
from snn_probe.probes import fisher_trace, hessian_eigenvalues, hessian_trace, loss_slice, timestep_accuracy
from snn_probe.temporal import check_temporal, from_spikingjelly
from snn_probe.training import evaluate

T = 4
X = 2 * torch.randn(12, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
Y = torch.arange(12) % 3


class Streams(nn.Module):
    """A neuron by hand; what is done with the currents and spikes is the argument's."""

    def __init__(self, read_out, currents=lambda c, t: c):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(6, 16), nn.Linear(16, 3)
        self.surrogate_function = surrogate.ATan()
        self.read_out, self.currents = read_out, currents
        self.double()

    def forward(self, x):
        v, spikes = 0.0, []
        for t in range(x.shape[1]):
            h = 0.5 * v + self.currents(self.a(x[:, t]), t)
            s = self.surrogate_function(h - 1.0)
            v = (1.0 - s) * h
            spikes.append(s)
        return self.read_out(self, torch.stack(spikes))


def step_by_step(model, spikes):
    return torch.stack([model.b(s) for s in spikes])


def examples_first(model, spikes):
    """(N*T, ...) for the read-out."""
    steps, n = spikes.shape[:2]
    return model.b(spikes.transpose(0, 1).flatten(0, 1)).unflatten(0, (n, steps)).transpose(0, 1)


def traces(model, inputs, labels, readout="prefix"):
    """One gradient per example and timestep, as it is defined."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    found = []
    for t in range(model(inputs[:1]).shape[0]):
        total = 0.0
        for x, y in zip(inputs.split(1), labels.split(1), strict=True):
            logits = model(x)
            read = logits[: t + 1].mean(0) if readout == "prefix" else logits[t]
            gradients = torch.autograd.grad(F.cross_entropy(read, y), parameters, allow_unused=True)
            total += sum(float(g.square().sum()) for g in gradients if g is not None)
        found.append(total / len(labels))
    return found


def found(model, inputs, labels, size, **options):
    batches = list(zip(inputs.split(size), labels.split(size), strict=True))
    result = fisher_trace(model, batches, **options)
    return result.table.query("layer == 'all'")["trace"].tolist(), result.settings["looped_layers"]


@pytest.mark.parametrize("readout", ["prefix", "instantaneous"])
@pytest.mark.parametrize("steps", [2, 3, 4])
def test_examples_before_timesteps_in_a_merged_axis(readout, steps):
    streams = 2 * torch.randn(12, steps, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    model = Streams(examples_first)
    values, _ = found(model, streams, Y, 6, readout=readout)
    assert values == pytest.approx(traces(model, streams, Y, readout), rel=1e-10)


@pytest.mark.parametrize("seed", range(8))
def test_an_order_that_the_first_example_does_not_tell_is_not_guessed(seed):
    """So few neurons that the gradients of the first example vanish at some timesteps."""
    torch.manual_seed(seed)
    model = Streams(examples_first)
    model.a, model.b = nn.Linear(6, 2).double(), nn.Linear(2, 3).double()
    model.surrogate_function = surrogate.PiecewiseQuadratic(alpha=1.0)
    streams = 4 * torch.randn(12, 2, 6, dtype=torch.float64)
    values, _ = found(model, streams, Y, 6)
    assert values == pytest.approx(traces(model, streams, Y), rel=1e-10)


def test_a_backward_pass_that_depends_on_the_other_examples_is_looped():
    def normalised(current, t):
        if current.requires_grad:
            current = current * 1.0
            current.register_hook(lambda g: g / (g.norm() + 1e-12))
        return current

    model, streams = Streams(step_by_step, normalised), X.unsqueeze(1).expand(-1, T, -1)
    values, looped = found(model, streams, Y, 6)
    assert "a" in looped and values == pytest.approx(traces(model, streams, Y), rel=1e-10)


def test_a_layer_with_a_hook_is_looped_where_the_first_examples_tell_nothing():
    model = Streams(step_by_step)
    model.a = nn.Linear(6, 16, bias=False).double()
    model.a.register_forward_hook(lambda module, given, result: 3 * result)
    streams = X.unsqueeze(1).repeat(1, T, 1)
    streams[:2] = 0.0
    values, looped = found(model, streams, Y, 6)
    assert "a" in looped and values == pytest.approx(traces(model, streams, Y), rel=1e-10)


# --- SpikingJelly's neurons, changed ---


def changed(how):
    torch.manual_seed(0)
    node = neuron.LIFNode(surrogate_function=surrogate.ATan(), decay_input=False)
    net = nn.Sequential(layer.Linear(6, 12), node, layer.Linear(12, 3)).double()
    original = node.multi_step_forward
    if how == "a hook on the surrogate":
        node.surrogate_function.register_forward_hook(lambda module, given, result: 2 * result)
    elif how == "a method of its own":
        node.multi_step_forward = lambda x: original(1.7 * x)
    elif how == "a learnable threshold":
        node.v_threshold = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
    elif how == "a threshold per neuron":
        node.v_threshold = torch.linspace(0.5, 1.5, 12, dtype=torch.float64)
    return from_spikingjelly(net, T)


CHANGES = ["a hook on the surrogate", "a method of its own", "a learnable threshold", "a threshold per neuron"]


@pytest.mark.parametrize("how", CHANGES)
def test_a_changed_neuron_is_measured_as_it_is(how):
    model = changed(how)
    assert check_temporal(model, X) == T
    with torch.no_grad():
        itself = float(F.cross_entropy(model(X).mean(0), Y))
    assert evaluate(model, [(X, Y)]).loss == pytest.approx(itself, rel=1e-12)
    assert loss_slice(model, [(X, Y)], [SDT()], alphas=[0.0]).table["loss"][0] == pytest.approx(itself, rel=1e-12)
    assert timestep_accuracy(model, [(X, Y)]).table["loss"].iloc[-1] == pytest.approx(itself, rel=1e-12)
    values, _ = found(model, X, Y, 6)
    assert values == pytest.approx(traces(model, X, Y), rel=1e-9)


def test_the_curvature_of_a_learnable_threshold():
    model = changed("a learnable threshold")
    (threshold,) = [p for name, p in model.named_parameters() if "threshold" in name]
    (slope,) = torch.autograd.grad(F.cross_entropy(model(X).mean(0), Y), threshold, create_graph=True)
    (bend,) = torch.autograd.grad(slope, threshold)
    result = hessian_trace(model, [(X, Y)], SDT(), num_probes=2, params=lambda name: "threshold" in name)
    assert result.table["trace"][0] == pytest.approx(float(bend), rel=1e-9) and float(bend) != 0.0


def test_noise_from_a_hook_on_the_surrogate_is_refused():
    model = changed("nothing")
    hook = lambda module, given, result: result * (torch.rand_like(result) < 0.5)  # noqa: E731
    model.net[1].surrogate_function.register_forward_hook(hook)
    with pytest.raises(ValueError, match="depend on the random state"):
        check_temporal(model, X)


def test_a_neuron_that_looks_at_the_batch_is_refused():
    model = changed("nothing")
    original = model.net[1].multi_step_forward
    model.net[1].multi_step_forward = lambda x: original(x - x.mean(1, keepdim=True))
    with pytest.raises(ValueError, match="depend on the other examples of its batch"):
        check_temporal(model, X)


@pytest.mark.parametrize("largest", [0, 1])
def test_a_scale_of_the_batch_is_refused_whichever_example_sets_it(largest):
    model = Streams(step_by_step)
    inputs = X[:2].unsqueeze(1).repeat(1, T, 1)
    inputs[largest] *= 5
    original = model.forward
    model.forward = lambda x: original(3 * x / x.abs().max())
    with pytest.raises(ValueError, match="depend on the other examples of its batch"):
        check_temporal(model, inputs)


def test_a_network_that_looks_at_the_next_example_is_refused():
    model = Streams(step_by_step)
    original = model.forward
    model.forward = lambda x: original(x + torch.cat([x[1:], 0 * x[:1]]))
    with pytest.raises(ValueError, match="depend on the other examples of its batch"):
        check_temporal(model, X[:2].unsqueeze(1).repeat(1, T, 1))


def test_the_kink_of_the_triangle_is_spikingjellys():
    """A silent neuron of TET and TRT lies exactly on it: h = 0, V_th = 1, sharpness 1."""
    torch.manual_seed(0)

    def lif():
        return neuron.LIFNode(decay_input=False, surrogate_function=surrogate.PiecewiseQuadratic(alpha=1.0))

    net = nn.Sequential(
        layer.Linear(6, 8, bias=False), lif(), layer.Linear(8, 8, bias=False), lif(), layer.Linear(8, 3)
    ).double()
    with torch.no_grad():
        net[2].weight.mul_(3.0)
    model, streams = from_spikingjelly(net), torch.randn(6, 3, 6, dtype=torch.float64)
    parameters = list(net.parameters())
    loss = F.cross_entropy(model(streams).mean(0), Y[:6])
    flat = torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters, create_graph=True)])
    rows = [
        torch.cat(
            [g.flatten() for g in torch.autograd.grad(one, parameters, retain_graph=True, materialize_grads=True)]
        )
        for one in flat
    ]
    dense = torch.stack(rows)
    expected = torch.linalg.eigvalsh((dense + dense.T) / 2).flip(0)[:3]
    table = hessian_eigenvalues(model, [(streams, Y[:6])], SDT(), k=3, tol=1e-9).table
    assert table["eigenvalue"].tolist() == pytest.approx(expected.tolist(), rel=1e-8)


def test_sums_of_gram_matrices_that_cancel_are_taken_another_way():
    from snn_probe.probes.weight_norms import linear

    torch.manual_seed(0)
    x = torch.randn(1, 1, 200).repeat(6, 1, 1)  # (S, n, C): the same input at all timesteps
    g = torch.randn(6, 1, 300)
    g = g - g.mean(0, keepdim=True) + 1e-5  # and gradients whose sum nearly vanishes
    exact = (g.double().sum(0).T @ x[0].double()).square().sum()
    assert linear(x.unsqueeze(2), g.unsqueeze(2)).item() == pytest.approx(float(exact), rel=1e-2)
