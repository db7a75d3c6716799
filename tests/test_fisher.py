"""Fisher traces against a loop over single examples, and what must not change them."""

import math

import networks
import oracles
import pytest
import torch
from spikingjelly.activation_based import layer, neuron
from torch import nn

from snn_probe.probes import fisher_trace, information_centroid
from snn_probe.temporal import from_spikingjelly


def batches(x, y, *sizes):
    assert sum(sizes) == len(x)
    return list(zip(x.split(sizes), y.split(sizes), strict=True))


def traces(result):
    return {(r.layer, r.timestep): (r.trace, r.stderr, r.n_groups) for r in result.table.itertuples()}


def assert_equals_loop(result, model, x, y, **options):
    expected = oracles.fisher_traces(model, x, y, **options)
    found = traces(result)
    steps = max(t for _, t in expected)
    layers = list(dict.fromkeys(name for name, _ in expected))
    for t in range(1, steps + 1):
        per_group = [sum(values) for values in zip(*(expected[name, t] for name in layers), strict=True)]
        for name, values in [*((name, expected[name, t]) for name in layers), ("all", per_group)]:
            mean = sum(values) / len(values)
            trace, stderr, groups = found[name, t]
            assert groups == len(values)
            assert trace == pytest.approx(mean, rel=1e-10, abs=1e-20), (name, t)
            if len(values) > 1:
                spread = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values))
                assert stderr == pytest.approx(spread, rel=1e-6, abs=1e-8 * mean), (name, t)
    assert len(found) == (len(layers) + 1) * steps


@pytest.mark.parametrize("num_steps", [None, 4])
@pytest.mark.parametrize("readout", ["prefix", "instantaneous"])
@pytest.mark.parametrize("group_size", [1, 3])
def test_equals_a_loop_over_single_examples(num_steps, readout, group_size):
    """Convolutions with bias and groups, batch norms, a ragged last batch; float64, 1e-10."""
    model = networks.convolutional(num_steps)
    x, y = networks.examples(9, num_steps)
    result = fisher_trace(model, batches(x, y, 4, 4, 1), readout=readout, group_size=group_size)
    assert result.settings["looped_layers"] == []
    assert result.settings["one_graph_per_step"]
    assert model.training  # untouched, though measured in eval mode as the loop is
    assert result.table["trace"].min() > 0
    assert_equals_loop(result, model, x, y, readout=readout, group_size=group_size)


def test_large_convolutions_are_contracted_one_by_one():
    """Above the block size the contraction takes another road; same numbers."""
    torch.manual_seed(0)
    net = nn.Sequential(layer.Conv2d(2, 90, 3), networks.lif(v_threshold=0.4), layer.Conv2d(90, 90, 3, bias=True),
                        networks.lif(v_threshold=0.2), layer.Flatten(), layer.Linear(90, 3))  # fmt: skip
    model = from_spikingjelly(net).double().eval()
    x, y = networks.examples(4, size=5, steps=3, classes=3)
    for size in (1, 2):
        assert_equals_loop(fisher_trace(model, [(x, y)], group_size=size), model, x, y, group_size=size)


def test_any_split_into_batches_gives_the_same_answer():
    model = networks.convolutional()
    x, y = networks.examples(12)
    for size in (1, 4):
        reference = traces(fisher_trace(model, batches(x, y, 12), group_size=size, labels="sampled", seed=3))
        for sizes in ((1,) * 12, (5, 7), (6, 5, 1), (11, 1)):
            found = traces(fisher_trace(model, batches(x, y, *sizes), group_size=size, labels="sampled", seed=3))
            for key, values in reference.items():
                assert found[key] == pytest.approx(values, rel=1e-9, nan_ok=True), (key, sizes)


def test_hand_written_recurrent_network_takes_loop_where_it_must():
    """``leak`` belongs to no layer with a closed form; ``recurrent`` is used at every step."""
    torch.manual_seed(0)
    model = networks.Recurrent().double()
    x = torch.randn(5, 4, 6, dtype=torch.float64)
    y = torch.tensor([0, 1, 2, 3, 0])
    result = fisher_trace(model, batches(x, y, 3, 2))
    assert list(result.settings["looped_layers"]) == [""]
    expected = oracles.fisher_traces(model, x, y)
    found = traces(result)
    for (name, t), values in expected.items():
        assert found[name or "leak", t][0] == pytest.approx(sum(values) / 5, rel=1e-10, abs=1e-20)
    assert found["leak", 4][0] > 0


def misleading(kind):
    """Networks in which a layer's contraction would be wrong if it were believed."""
    torch.manual_seed(0)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.inward, self.outward = nn.Linear(6, 6), nn.Linear(6, 4)
            if kind == "tied":
                self.again = nn.Linear(6, 6)
                self.again.weight = self.inward.weight

        def forward(self, inputs):
            x = inputs.transpose(0, 1)
            if kind == "batch first":  # merged the other way round, N before T
                x = self.inward(inputs.flatten(0, 1)).unflatten(0, inputs.shape[:2]).transpose(0, 1)
            elif kind == "tied":
                x = self.again(torch.tanh(self.inward(x)))
            elif kind == "in place":
                z = self.inward(x)
                x = z.mul_(2.0)
            elif kind == "weight used elsewhere":
                x = self.inward(x) + x @ self.inward.weight
            elif kind == "other axis":
                x = self.inward(x.transpose(1, 2).transpose(1, 2)[:, torch.arange(x.shape[1]).flip(0)]).flip(1)
            return self.outward(torch.tanh(x)).cumsum(0)

    return Model().double()


@pytest.mark.parametrize("kind", ["batch first", "tied", "in place", "weight used elsewhere", "other axis"])
def test_a_layer_whose_contraction_would_be_wrong_is_looped_or_right(kind):
    model = misleading(kind)
    x = torch.randn(4, 3, 6, dtype=torch.float64)
    y = torch.tensor([0, 1, 2, 3])
    assert_equals_loop(fisher_trace(model, batches(x, y, 4)), model, x, y)


class BatchFirst(nn.Module):
    """Inputs (N, T, F); linear layers see (N, T, F), or (N * T, F) where ``merged``; time is moved first at the end."""

    def __init__(self, merged):
        super().__init__()
        torch.manual_seed(0)
        self.inward, self.outward, self.merged = nn.Linear(6, 9), nn.Linear(9, 4), merged

    def apply(self, layer, x):
        return layer(x.flatten(0, 1)).unflatten(0, x.shape[:2]) if self.merged else layer(x)

    def forward(self, inputs):
        x = torch.tanh(self.apply(self.inward, inputs).cumsum(1))
        return self.apply(self.outward, x).cumsum(1).transpose(0, 1)


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("sizes", [(5, 5), (10,), (1, 9), (2, 8)])
@pytest.mark.parametrize("group_size", [1, 2, 5])
@pytest.mark.parametrize("twins", [False, True])
def test_batch_first_networks_whatever_the_sizes(merged, sizes, group_size, twins):
    """T = 5 = N in some batches, a first batch of one example, first examples that are equal."""
    model = BatchFirst(merged).double()
    x, y = torch.randn(10, 5, 6, dtype=torch.float64), torch.arange(10) % 4
    if twins:
        x[1], y[1] = x[0], y[0]
    result = fisher_trace(model, batches(x, y, *sizes), group_size=group_size)
    assert result.settings["looped_layers"] == []
    assert_equals_loop(result, model, x, y, group_size=group_size)


def test_layers_that_are_not_known_are_looped():
    class Scaled(nn.Linear):
        def forward(self, x):
            return super().forward(x) * 2 + self.weight.sum()

    torch.manual_seed(0)
    net = nn.Sequential(layer.Linear(6, 5), networks.lif(v_threshold=0.2), Scaled(5, 5),
                        neuron.ParametricLIFNode(v_threshold=0.2), layer.Linear(5, 3))  # fmt: skip
    model = from_spikingjelly(net).double()
    x, y = torch.randn(4, 3, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    result = fisher_trace(model, batches(x, y, 3, 1))
    assert result.settings["looped_layers"] == ["net.2", "net.3"]
    assert_equals_loop(result, model, x, y)


def test_a_network_that_means_something_else_in_single_step_mode_is_not_unrolled():
    class Mixer(nn.Module):
        """Takes time for granted: in single-step mode it would silently average over channels."""

        def forward(self, x):
            return x + x.mean(0, keepdim=True)

    torch.manual_seed(0)
    model = from_spikingjelly(nn.Sequential(layer.Linear(6, 8), networks.lif(v_threshold=0.2), Mixer(), layer.Linear(8, 3)))
    model = model.double()
    x, y = torch.randn(4, 3, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    result = fisher_trace(model, [(x, y)])
    assert not result.settings["one_graph_per_step"]
    assert_equals_loop(result, model, x, y)


def test_parameters_may_be_selected_by_name():
    model = networks.convolutional()
    x, y = networks.examples(5)
    whole = traces(fisher_trace(model, [(x, y)]))
    weights = traces(fisher_trace(model, [(x, y)], params=lambda name: name.endswith("weight")))
    biases = traces(fisher_trace(model, [(x, y)], params=lambda name: name.endswith("bias")))
    for key in whole:
        assert weights[key][0] + biases[key][0] == pytest.approx(whole[key][0], rel=1e-12)
        assert min(weights[key][0], biases[key][0]) > 0
    for p in model.net[0].parameters():
        p.requires_grad_(False)
    frozen = fisher_trace(model, [(x, y)])
    assert "net.0" not in set(frozen.table["layer"])


def test_group_size_reproduces_the_batch_mean_procedure():
    """sum over batches of the squared gradient of the batch mean, as in the published programs."""
    model = networks.convolutional()
    x, y = networks.examples(8)
    model.eval()
    for t in (1, 5):
        expected = 0.0
        for a, b in batches(x, y, 4, 4):
            loss = nn.functional.cross_entropy(sum(model(a)[:t]) / t, b)
            expected += sum(float((g**2).sum()) for g in torch.autograd.grad(loss, list(model.parameters())))
        found = traces(fisher_trace(model, batches(x, y, 8), group_size=4))["all", t]
        assert found[0] == pytest.approx(expected / 2, rel=1e-10)


def test_leftover_examples_are_counted():
    model = networks.convolutional()
    x, y = networks.examples(7)
    result = fisher_trace(model, batches(x, y, 4, 3), group_size=3)
    assert (result.settings["num_examples"], result.settings["examples_left_out"]) == (7, 1)
    assert set(result.table["n_groups"]) == {2}


def test_sampled_labels_estimate_the_fisher_of_the_model():
    """Mean over many draws against sum_c p_c ||grad log p_c||^2 by hand, within 4 standard errors."""
    model = networks.convolutional().eval()
    x, _ = networks.examples(2, seed=5)
    repeated = x.repeat(300, 1, 1, 1, 1)
    result = fisher_trace(model, [(repeated, torch.zeros(600, dtype=torch.int64))], labels="sampled", seed=7)
    found = traces(result)
    for t in (1, 5):
        truth = 0.0
        for n in range(2):
            log_p = model(x[n : n + 1])[:t].mean(0).log_softmax(-1)[0]
            for c in range(len(log_p)):
                grads = torch.autograd.grad(log_p[c], list(model.parameters()), retain_graph=True)
                truth += float(log_p[c].detach().exp()) * sum(float((g**2).sum()) for g in grads) / 2
        trace, stderr, _ = found["all", t]
        assert abs(trace - truth) < 4 * stderr
        assert stderr < 0.1 * truth


def test_softmax_regression_in_closed_form():
    """Logits W x at every step: ||grad_W log p_y||^2 = ||onehot - p||^2 ||x||^2, bias ||onehot - p||^2."""

    class Regression(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 4)

        def forward(self, x):
            return self.linear(x).expand(2, len(x), 4)

    model = Regression().double()
    x, y = torch.randn(6, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0, 1])
    p = model(x)[0].softmax(-1)
    delta = ((nn.functional.one_hot(y, 4) - p) ** 2).sum(1)
    expected = (delta * ((x**2).sum(1) + 1)).mean().item()
    found = traces(fisher_trace(model, [(x, y)]))
    assert found["linear", 1][0] == pytest.approx(expected, rel=1e-12)
    assert found["all", 2][0] == pytest.approx(expected, rel=1e-12)


def test_float32_agrees_with_float64():
    x, y = networks.examples(6, dtype=torch.float32)
    single = traces(fisher_trace(networks.convolutional(double=False), [(x, y)]))
    double = traces(fisher_trace(networks.convolutional(), [(x.double(), y)]))
    for key, values in double.items():
        assert single[key][0] == pytest.approx(values[0], rel=1e-3)


def test_information_centroid():
    result = fisher_trace(networks.convolutional(), [networks.examples(5)])
    rows = result.table[result.table["layer"] == "all"]
    expected = (rows["timestep"] * rows["trace"]).sum() / rows["trace"].sum()
    assert information_centroid(result.table) == pytest.approx(expected)
    assert 1 < expected < 5


def nan_model():
    model = networks.convolutional()
    model.net[-1].bias.data[0] = math.nan
    return model


X, Y = networks.examples(4)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (dict(group_size=0), r"group_size is 0; give a whole number of at least 1\."),
        (dict(group_size=2.0), r"group_size is 2\.0; give a whole number"),
        (dict(group_size=5), r"group_size is 5 but there are only 4 examples; give at least one group\."),
        (dict(labels="guessed"), r"labels is 'guessed'; give one of 'true', 'sampled'\."),
        (dict(readout="last"), r"readout is 'last'; give one of 'prefix', 'instantaneous'\."),
        (dict(params=lambda name: False), r"params selects no trainable parameter of the model; it has: net\.0\.weight"),
        (dict(params="conv"), r"params is 'conv'; give None .* or a function"),
        (dict(batches=[]), r"batches is empty; give at least one batch"),
        (dict(batches=iter([(X, Y)])), r"batches is a one-shot iterator; give a list"),
        (dict(batches=[(X, Y[:2])]), r"Batch 0 has 4 inputs and 2 labels; give equally many"),
        (dict(batches=[(X, Y), (X[:0], Y[:0])]), r"Batch 1 has 0 inputs and 0 labels"),
        (dict(batches=[(X * math.nan, Y)]), r"Batch 0 contains NaN or infinite inputs"),
        (dict(model=nan_model()), r"The model's logits are not finite; probe a checkpoint from before"),
        (dict(model=nn.Flatten()), r"params selects no trainable parameter of the model; it has: none"),
    ],
)
def test_bad_arguments_get_one_sentence(arguments, sentence):
    given = {"model": networks.convolutional(), "batches": [(X, Y)], **arguments}
    with pytest.raises(ValueError, match=sentence):
        fisher_trace(given.pop("model"), given.pop("batches"), **given)
