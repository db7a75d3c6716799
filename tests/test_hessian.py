"""Curvature against dense matrices, closed forms and finite differences."""

import gc
import math
import warnings

import networks
import numpy as np
import oracles
import pytest
import torch
from spikingjelly.activation_based import layer, neuron, surrogate
from torch import nn

from snn_probe.objectives import SDT, TET, TRT
from snn_probe.parameters import flatten, trainable, unflatten
from snn_probe.probes import hessian_density, hessian_eigenvalues, hessian_eigenvectors, hessian_trace
from snn_probe.probes.operator import MEMORY_SHARE, CurvatureOperator, _held_bytes, spikes_as
from snn_probe.probes.second_order import second_order
from snn_probe.temporal import from_spikingjelly, probing

OBJECTIVES = [SDT(), TET(), TRT(strength=1e-2, decay=0.5)]
X, Y = networks.examples(5)
RAGGED = [(X[:4], Y[:4]), (X[4:], Y[4:])]


def small(seed=0):
    torch.manual_seed(seed)
    net = nn.Sequential(layer.Linear(6, 7), networks.lif(v_threshold=0.4), layer.Linear(7, 6), layer.BatchNorm1d(6),
                        networks.lif(v_threshold=0.3), layer.Linear(6, 4))  # fmt: skip
    return from_spikingjelly(net).double().eval()


SMALL_X = 2 * torch.randn(5, 4, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
SMALL_Y = torch.tensor([0, 1, 2, 3, 1])
SMALL = [(SMALL_X[:3], SMALL_Y[:3]), (SMALL_X[3:], SMALL_Y[3:])]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: o.name)
@pytest.mark.parametrize("forward", ["spiking", "relaxed"])
@pytest.mark.parametrize("operator", ["hessian", "ggn"])
def test_products_and_eigenvalues_equal_the_dense_matrix(objective, forward, operator):
    model = small()
    with spikes_as(model, forward):
        if operator == "hessian":
            dense = oracles.dense_hessian(model, SMALL, objective)
        else:
            bare = objective.without_penalty if isinstance(objective, TRT) else objective
            dense = oracles.dense_gauss_newton(model, SMALL, lambda z, y, p: bare(z, y))
            if isinstance(objective, TRT):
                rest = oracles.dense_hessian(model, SMALL, lambda z, y, p: objective(z, y, p) - bare(z, y))
                dense = dense + rest
    assert torch.allclose(dense, dense.T, rtol=1e-10, atol=1e-12)
    with probing(model), spikes_as(model, forward):
        curvature = CurvatureOperator(model, SMALL, objective, trainable(model), operator=operator)
        v = torch.randn(len(dense), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        assert torch.allclose(curvature @ v, dense @ v, rtol=1e-9, atol=1e-11)
    result = hessian_eigenvalues(model, SMALL, objective, k=4, tol=1e-9, forward=forward, operator=operator)
    truth = torch.linalg.eigvalsh(dense).flip(0)[:4]
    assert result.table["eigenvalue"].to_numpy() == pytest.approx(truth.numpy(), rel=1e-8)
    assert result.table["converged"].all() and (result.table["residual"] <= 1e-9).all()
    assert (result.settings["operator"], result.settings["forward"]) == (operator, forward)
    assert result.settings["asymmetry"] < 1e-10


def test_eigenvectors_satisfy_their_equation():
    model = networks.convolutional().eval()
    dense = oracles.dense_hessian(model, RAGGED, SDT())
    result, vectors = hessian_eigenvectors(model, RAGGED, SDT(), k=3, tol=1e-7)
    for row, vector in zip(result.table.itertuples(), vectors, strict=True):
        assert list(vector) == list(trainable(model))
        v = flatten(vector)
        assert float((dense @ v - row.eigenvalue * v).norm()) <= 1e-6 * result.table["eigenvalue"].abs().max()


def test_relaxed_curvature_is_the_finite_difference_of_gradients_and_of_the_loss():
    """Where spikes are smooth, three definitions of v'Hv agree; autograd is not compared with itself."""
    model = small()
    params = trainable(model)
    theta = flatten({n: p.detach() for n, p in params.items()})
    _, vectors = hessian_eigenvectors(model, SMALL, SDT(), k=1, tol=1e-8, forward="relaxed")
    v = flatten(vectors[0])

    def at(step):
        moved = unflatten(theta + step * v, params)
        values = 0.0
        for x, y in SMALL:
            values = values + SDT()(torch.func.functional_call(model, moved, (x,)), y) * len(y) / 5
        return values

    with spikes_as(model, "relaxed"), torch.no_grad():
        h = 1e-4
        second = float((at(h) - 2 * at(0.0) + at(-h)) / h**2)
    value = hessian_eigenvalues(model, SMALL, SDT(), k=1, tol=1e-8, forward="relaxed").table["eigenvalue"][0]
    assert second == pytest.approx(value, rel=1e-4)


def test_quadratic_in_closed_form():
    """L = mean of (w . x_n)^2 through a callable objective; H = 2 mean x x^T."""

    class Linear(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 2, bias=False)

        def forward(self, x):
            return self.linear(x).unsqueeze(0)

    model, x = Linear().double(), torch.randn(9, 4, dtype=torch.float64)
    y = torch.zeros(9, dtype=torch.int64)
    batches = [(x[:7], y[:7]), (x[7:], y[7:])]
    expected = np.linalg.eigvalsh(2 * (x.T @ x / 9).numpy())[::-1]

    def objective(logits, labels, params):
        return logits.square().sum((0, 2)).mean()

    found = hessian_eigenvalues(model, batches, objective, k=8, tol=1e-10).table["eigenvalue"].to_numpy()
    assert found == pytest.approx(np.repeat(expected, 2), rel=1e-8)
    trace = hessian_trace(model, batches, objective, num_probes=400)
    assert abs(trace.table["trace"][0] - 2 * expected.sum()) < 4 * trace.table["stderr"][0]


def test_softmax_regression_in_closed_form():
    """H = mean of (diag p - p p^T) kron x x^T, and for a linear model the GGN is the Hessian."""

    class Regression(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 4, bias=False)

        def forward(self, x):
            return self.linear(x).expand(2, len(x), 4)

    model, x = Regression().double(), torch.randn(6, 3, dtype=torch.float64)
    p = model(x)[0].softmax(-1).detach()
    dense = sum(torch.kron(torch.diag(q) - torch.outer(q, q), torch.outer(a, a)) for q, a in zip(p, x, strict=True)) / 6
    truth = torch.linalg.eigvalsh(dense).flip(0)[:3].numpy()
    y = torch.tensor([0, 1, 2, 3, 0, 1])
    for operator in ("hessian", "ggn"):
        found = hessian_eigenvalues(model, [(x, y)], SDT(), k=3, tol=1e-9, operator=operator)
        assert found.table["eigenvalue"].to_numpy() == pytest.approx(truth, rel=1e-8)


def test_trace_within_its_error_and_exact_on_a_diagonal():
    model = small()
    dense = oracles.dense_hessian(model, SMALL, SDT())
    result = hessian_trace(model, SMALL, SDT(), num_probes=200, seed=1)
    row = result.table.iloc[0]
    assert abs(row["trace"] - float(dense.trace())) < 4 * row["stderr"]
    assert row["n_probes"] == 200
    off_diagonal = float(dense.square().sum() - dense.diagonal().square().sum())
    assert row["stderr"] == pytest.approx(math.sqrt(2 * off_diagonal / 200), rel=0.25)  # u.Hu for random signs

    def diagonal(logits, labels, params):  # its Hessian is 6 I: Rademacher probes are exact
        return sum(3 * p.square().sum() for p in params.values()) + 0 * logits.sum()

    exact = hessian_trace(model, SMALL, diagonal, num_probes=3)
    assert exact.table["trace"][0] == pytest.approx(6 * exact.settings["num_parameters"], rel=1e-12)
    assert exact.table["stderr"][0] == pytest.approx(0, abs=1e-9)


def test_density_integrates_to_one_and_has_the_moments_of_the_spectrum():
    model = small()
    eigenvalues = torch.linalg.eigvalsh(oracles.dense_hessian(model, SMALL, SDT())).numpy()
    result = hessian_density(model, SMALL, SDT(), num_probes=25, num_steps=25)
    x, density = (result.table[name].to_numpy() for name in ("eigenvalue", "density"))
    assert np.trapezoid(density, x) == pytest.approx(1, abs=1e-3)
    assert np.trapezoid(x * density, x) == pytest.approx(eigenvalues.mean(), abs=0.05 * np.abs(eigenvalues).max())
    width = result.settings["broadening"]
    assert x.min() == pytest.approx(eigenvalues.min() - 4 * width, abs=2 * width)
    assert x.max() == pytest.approx(eigenvalues.max() + 4 * width, abs=2 * width)


@pytest.mark.parametrize("operator", ["hessian", "ggn"])
def test_kept_and_rebuilt_graphs_and_any_batches_give_the_same_answer(monkeypatch, operator):
    """The allowance decides what is kept and how many examples are differentiated at once, never the answer."""
    model, objective = networks.convolutional(), TRT(strength=1e-2)
    options = dict(k=2, tol=1e-6, operator=operator)
    reference = hessian_eigenvalues(model, [(X, Y)], objective, **options)
    assert reference.settings["graphs_kept"] and reference.settings["examples_at_once"] == 5
    values = reference.table["eigenvalue"].to_numpy()
    with probing(model), second_order(model):
        each = CurvatureOperator(model, [(X, Y)], objective, trainable(model), operator=operator).bytes_per_example
    monkeypatch.setattr("snn_probe.probes.operator.free_bytes", lambda device: each / MEMORY_SHARE)
    for allowed, at_once in ((0.5, 1), (2.1, 2)):
        monkeypatch.setattr("snn_probe.probes.operator.MEMORY_SHARE", allowed * MEMORY_SHARE)
        for batches in ([(X, Y)], RAGGED):
            found = hessian_eigenvalues(model, batches, objective, **options)
            assert not found.settings["graphs_kept"]
            assert found.settings["examples_at_once"] == at_once
            assert found.table["eigenvalue"].to_numpy() == pytest.approx(values, rel=1e-9)


def test_the_memory_of_a_graph_is_foreseen_from_a_few_examples():
    """Linear in the examples: what a graph of 40 keeps lies on the line through those of 2 and 5."""
    model, (x, y) = networks.convolutional(), networks.examples(40)
    with probing(model), second_order(model):
        curvature = CurvatureOperator(model, [(x, y)], SDT(), trainable(model))
        ten, forty = (_held_bytes(lambda n=n: curvature._graph(x[:n], y[:n])) for n in (10, 40))
    assert forty - ten == pytest.approx(30 * curvature.bytes_per_example, rel=0.01)
    assert forty > 40 * x[0].numel() * 8


LAYERS = [f"net.{i}." for i in (0, 2, 3, 5)]


@pytest.mark.parametrize("layer_name", LAYERS)
@pytest.mark.parametrize("operator", ["hessian", "ggn"])
@pytest.mark.parametrize("objective", [SDT(), TRT(strength=1e-2, penalize="hidden_weights")], ids=["sdt", "trt"])
def test_one_layer_alone_is_the_diagonal_block(layer_name, operator, objective):
    """Also for an objective that reads weights of other layers: which of them is the last one it must know."""
    model = small()
    names = [n for n, p in model.named_parameters() for _ in range(p.numel())]
    chosen = [i for i, n in enumerate(names) if n.startswith(layer_name)]
    if operator == "hessian":
        dense = oracles.dense_hessian(model, SMALL, objective)
    else:
        bare = getattr(objective, "without_penalty", objective)
        dense = oracles.dense_gauss_newton(model, SMALL, lambda z, y, p: bare(z, y))
        dense = dense + oracles.dense_hessian(model, SMALL, lambda z, y, p: objective(z, y, p) - bare(z, y))
    block = dense[chosen][:, chosen]
    options = dict(operator=operator, params=lambda name: name.startswith(layer_name))
    result = hessian_eigenvalues(model, SMALL, objective, k=2, tol=1e-9, **options)
    truth = torch.linalg.eigvalsh(block).flip(0)[:2].numpy()
    assert result.table["eigenvalue"].to_numpy() == pytest.approx(truth, rel=1e-7, abs=1e-12)
    assert result.settings["num_parameters"] == len(chosen)
    trace = hessian_trace(model, SMALL, objective, num_probes=40, **options).table.iloc[0]
    assert abs(trace["trace"] - float(block.trace())) <= 4 * trace["stderr"] + 1e-12
    density = hessian_density(model, SMALL, objective, num_probes=2, num_steps=len(chosen), **options)
    width, (low, high) = density.settings["broadening"], torch.linalg.eigvalsh(block)[[0, -1]].tolist()
    ends = density.table["eigenvalue"].iloc[[0, -1]].to_list()
    assert ends == pytest.approx([low - 4 * width, high + 4 * width], abs=width)
    assert all(p.requires_grad for p in model.parameters())


def test_products_for_one_layer_reach_no_further_down_and_no_other_weights():
    model = networks.convolutional()

    def saved(prefix):
        with probing(model), second_order(model):
            params = trainable(model, params=lambda name: name.startswith(prefix))
            return CurvatureOperator(model, [(X, Y)], SDT(), params).bytes_per_example

    everything, last = saved(""), saved("net.11.")
    assert last < 0.05 * everything and saved("net.0.") < everything


def test_parameters_that_the_loss_does_not_reach_have_no_curvature():
    model = small()
    model.unused = nn.Parameter(torch.ones(3, dtype=torch.float64))
    for operator in ("hessian", "ggn"):
        options = dict(operator=operator, params=lambda name: name == "unused")
        with pytest.warns(UserWarning, match="No gradient reaches"):
            assert hessian_eigenvalues(model, SMALL, SDT(), k=2, **options).table["eigenvalue"].tolist() == [0, 0]
            assert hessian_trace(model, SMALL, SDT(), **options).table["trace"][0] == 0


def test_ggn_is_positive_semidefinite():
    result = hessian_eigenvalues(small(), SMALL, TET(), k=20, tol=1e-6, operator="ggn")
    assert (result.table["eigenvalue"] > -1e-9).all()


def test_unconverged_values_are_kept_and_marked():
    result = hessian_eigenvalues(networks.convolutional(), RAGGED, SDT(), k=3, tol=1e-9, max_products=5)
    assert result.settings["max_products"] == 5
    table = result.table
    assert len(table) == 3 and not table["converged"].all() and (table["products"] == 5).all()


def test_a_surrogate_without_second_derivative_gives_a_warning():
    torch.manual_seed(0)
    net = nn.Sequential(layer.Linear(6, 7), neuron.LIFNode(surrogate_function=surrogate.Rect()), layer.Linear(7, 4))
    model = from_spikingjelly(net).double()
    with pytest.warns(UserWarning, match=r"gradient of net\.1 has no second derivative, so the Hessian has deg"):
        result = hessian_eigenvalues(model, SMALL, SDT(), k=1)
    assert result.settings["without_second_derivative"] == ["net.1"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hessian_eigenvalues(model, SMALL, SDT(), k=1, operator="ggn")  # needs no second derivative


def test_an_operator_that_is_not_symmetric_gives_a_warning():
    class Crooked(torch.autograd.Function):
        """Forward and first derivative of x^2 / 2, and a second derivative that belongs to nothing."""

        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.square().sum() / 2

        @staticmethod
        def backward(ctx, g):
            return g * Slope.apply(ctx.saved_tensors[0])

    class Slope(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            return g * torch.linspace(0, 5, g.numel(), dtype=g.dtype).view(g.shape) + g.flatten().roll(1).view(g.shape)

    def objective(logits, labels, params):
        return Crooked.apply(params["net.0.weight"]) + 0 * logits.sum()

    with pytest.warns(UserWarning, match="The curvature operator is not symmetric"):
        hessian_eigenvalues(small(), SMALL, objective, k=1, max_products=5)


def biases_alone():
    model = networks.convolutional()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("bias" in name)
    return model


BAD = [
    (dict(batches=[]), r"batches is empty; give at least one batch \(inputs, labels\)\."),
    (dict(batches=iter([(X, Y)])), r"batches is a one-shot iterator; give a list"),
    (dict(batches=[(X, Y), (X[:0], Y[:0])]), r"Batch 1 has 0 inputs and 0 labels; give equally many, at least one\."),
    (dict(batches=[(X, Y[:4])]), r"Batch 0 has 5 inputs and 4 labels; give equally many"),
    (dict(batches=[(X * math.nan, Y)]), r"Batch 0 contains NaN or infinite inputs; clean the data"),
    (dict(batches=[(X, Y + 5)]), r"Batch 0 has labels from \d to \d, but the model has 5 classes; give labels"),
    (dict(batches=[(X, Y), (X, Y - 4)]), r"Batch 1 has labels from -?\d to -?\d, but the model has 5 classes"),
    (dict(batches=[(X, Y.double())]), r"Batch 0 has labels of type torch\.float64; give class numbers of type"),
    (dict(operator="fisher"), r"operator is 'fisher'; give one of 'hessian', 'ggn'\."),
    (dict(forward="smooth"), r"forward is 'smooth'; give one of 'spiking', 'relaxed'\."),
    (dict(objective="sdt"), r"objective is 'sdt'; give SDT\(\), TET\(\), TRT\(\) or a function"),
    (dict(objective=TRT), r"objective is <class .*TRT'>; give SDT\(\), TET\(\), TRT\(\) or a function"),
    (dict(objective=lambda z, y, p: z.sum() * math.nan), r"The loss is not finite; probe a checkpoint"),
    (dict(objective=lambda z, y, p: z.sum((0, 1))), r"The objective returned shape \(5,\); give a scalar tensor"),
    (dict(objective=lambda z, y, p: 1.0), r"The objective returned float; give a scalar tensor, the mean"),
    (dict(objective=lambda z, y, p: p["gate"].sum()), r"The objective needs the parameter 'gate', which is no"),
    (dict(objective=TRT(), model=biases_alone()), r"penalize='non_bias' selects none of the parameters .*; give the"),
    (dict(params=lambda name: "conv9" in name), r"params selects no trainable parameter of the model; it has: net\.0"),
    (dict(params="net.0"), r"params is 'net\.0'; give None for all trainable parameters or a function"),
    (dict(model=networks.Recurrent(features=6).double(), batches=SMALL, forward="relaxed"), r"'relaxed' needs surro"),
]  # fmt: skip
OWN = [
    (hessian_eigenvalues, dict(k=0), r"k is 0; give a whole number of at least 1\."),
    (hessian_eigenvalues, dict(k=1000), r"k is 1000, but only \d+ parameters are selected; give k from 1 to that\."),
    (hessian_eigenvectors, dict(k=1000), r"k is 1000, but only \d+ parameters are selected; give k from 1 to that\."),
    (hessian_eigenvalues, dict(k=2.0), r"k is 2\.0; give a whole number of at least 1\."),
    (hessian_eigenvalues, dict(tol=0), r"tol is 0; give a number between 0 and 1\."),
    (hessian_eigenvalues, dict(max_products=0), r"max_products is 0; give a whole number"),
    *((probe, dict(seed=1.5), r"seed is 1\.5; give a whole number of at least 0\.") for probe in (hessian_eigenvalues, hessian_trace)),
    (hessian_density, dict(seed=-1), r"seed is -1; give a whole number of at least 0\."),
    (hessian_trace, dict(num_probes=1), r"num_probes is 1; give a whole number of at least 2\."),
    (hessian_density, dict(num_probes=0), r"num_probes is 0; give a whole number of at least 1\."),
    (hessian_density, dict(num_steps=1), r"num_steps is 1; give a whole number of at least 2\."),
]  # fmt: skip
PROBES = [hessian_eigenvalues, hessian_trace, hessian_density]


@pytest.mark.parametrize(("probe", "arguments", "sentence"), [(p, *bad) for bad in BAD for p in PROBES] + OWN)
def test_bad_arguments_get_one_sentence(probe, arguments, sentence):
    given = {"model": networks.convolutional(), "batches": [(X, Y)], "objective": SDT(), **arguments}
    with pytest.raises(ValueError, match=sentence) as caught:
        probe(given.pop("model"), given.pop("batches"), given.pop("objective"), **given)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="fused kernels are chosen on CUDA alone")
def test_curvature_on_cuda_is_that_of_the_cpu():
    cpu = hessian_eigenvalues(networks.convolutional(double=False), [(X.float(), Y)], SDT(), k=2)
    gpu = hessian_eigenvalues(networks.convolutional(double=False).cuda(), [(X.float(), Y)], SDT(), k=2)
    assert gpu.table["eigenvalue"].to_numpy() == pytest.approx(cpu.table["eigenvalue"].to_numpy(), rel=1e-2)
    assert gpu.settings["asymmetry"] < 1e-3


def test_nothing_is_left_of_a_measurement():
    """A saved tensor and the node that saved it may hold each other where no collector looks."""

    def tensors():
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    model, (x, y) = networks.convolutional(4), networks.examples(8, 4)

    def measure():
        hessian_trace(model, [(x, y)], SDT(), num_probes=2)

    measure()
    before = tensors()
    measure()
    assert tensors() == before
