"""Fisher traces against a loop over single examples, and what must not change them."""

import math

import networks
import oracles
import pytest
import torch
from spikingjelly.activation_based import layer, neuron, surrogate
from torch import nn

from snn_probe.probes import fisher_trace, gram, information_centroid
from snn_probe.temporal import from_snntorch, from_spikingjelly


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


@pytest.mark.parametrize("readout", ["prefix", "instantaneous"])
@pytest.mark.parametrize("takes", ["time first", "examples first"])
@pytest.mark.parametrize("pays", [True, False])
def test_large_convolutions_take_gram_matrices_or_one_example_at_a_time(monkeypatch, readout, takes, pays):
    """Above the block size the contraction takes other roads; same numbers. Without single steps each loss meets all
    uses of a layer."""
    torch.manual_seed(0)
    net = nn.Sequential(layer.Conv2d(2, 90, 3), networks.lif(v_threshold=0.4),
                        layer.Conv2d(90, 90, 3, stride=2, padding=(1, 2), dilation=(1, 2), bias=True),
                        networks.lif(v_threshold=0.2), layer.Conv2d(90, 90, 2), networks.lif(v_threshold=0.1),
                        layer.Flatten(), layer.Linear(90, 3))  # fmt: skip
    model = from_spikingjelly(net)
    if takes == "examples first":
        model = from_spikingjelly(Swapped(net), takes="examples first")
    model = model.double().eval()
    used = []
    original = gram.squared_norms
    monkeypatch.setattr(gram, "squared_norms", lambda *args: used.append(args) or original(*args))
    if not pays:
        monkeypatch.setattr(gram, "pays", lambda *args, **options: False)
    x, y = networks.examples(4, size=5, steps=3, classes=3)
    for size in (1, 2):
        result = fisher_trace(model, [(x, y)], group_size=size, readout=readout)
        assert result.settings["looped_layers"] == []
        assert result.settings["one_graph_per_step"] == (takes == "time first")
        assert_equals_loop(result, model, x, y, group_size=size, readout=readout)
    assert bool(used) == pays


class Swapped(nn.Module):
    """A network whose forward takes examples before time."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x.transpose(0, 1))


class Cancelling(nn.Module):
    """Inputs that are nearly one large number, and outputs from which the norm takes their mean: what the many terms
    of the Gram matrices add up to is small beside them."""

    def __init__(self, offset):
        super().__init__()
        torch.manual_seed(0)
        self.offset = offset
        self.conv, self.norm, self.head = nn.Conv2d(96, 96, 3), nn.GroupNorm(96, 96), nn.Linear(96, 3)

    def forward(self, x):
        x = self.offset + 0.1 * x.transpose(0, 1).relu()
        steps = [self.head(self.norm(self.conv(one)).tanh().flatten(2)[..., 0]) for one in x]
        return torch.stack(steps)


@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_gram_matrices_that_lose_digits_are_left_alone(monkeypatch, offset):
    sound = []
    original = gram.squared_norms
    monkeypatch.setattr(gram, "squared_norms", lambda *args: sound.append(original(*args)) or sound[-1])
    x, y = torch.randn(6, 3, 96, 5, 5, generator=torch.Generator().manual_seed(1)), torch.arange(6) % 3
    found = fisher_trace(Cancelling(offset), batches(x, y, 3, 3))
    kept = [one for _, one in sound]
    assert all(kept) if offset == 0 else not any(kept)
    assert len(kept) >= (7 if offset == 0 else 1)
    exact = fisher_trace(Cancelling(offset).double(), batches(x.double(), y, 3, 3))
    assert found.settings["looped_layers"] == []
    ours, double = (one.table.query("layer == 'conv'")["trace"].to_numpy() for one in (found, exact))
    assert abs(ours / double - 1).max() < 3e-5


def test_gram_matrices_pay_where_positions_are_few():
    """The products counted here by hand, for VGGSNN at half width: 10 losses of prefixes of 10 timesteps."""
    conv = nn.Conv2d(256, 256, 3, padding=1)

    def products(positions):
        prefixes = range(1, 11)
        through = (10 * positions) ** 2 * 2304 + sum((t * positions) ** 2 * 256 for t in prefixes)
        return through, sum(t * positions * 256 * 2304 for t in prefixes)

    for positions in (4, 16, 36, 64, 100, 144, 576):
        through_gram, direct = products(positions)
        if not 0.8 < through_gram / direct < 1.25:
            pays = gram.pays(conv, uses=10, positions=positions, losses=10, prefixes=True)
            assert pays == (through_gram < direct), positions
    assert gram.pays(conv, uses=10, positions=36, losses=10, prefixes=True)
    assert not gram.pays(conv, uses=10, positions=144, losses=10, prefixes=True)
    grouped = nn.Conv2d(256, 256, 3, padding=1, groups=2)
    assert not gram.pays(grouped, uses=10, positions=36, losses=10, prefixes=True)
    assert not gram.pays(nn.Conv1d(256, 256, 3), uses=10, positions=36, losses=10, prefixes=True)


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
    """``leak`` says by its size how wide a layer is, so copies cannot stand for it; ``recurrent`` is used each step."""
    torch.manual_seed(0)
    model = networks.Recurrent().double()
    x = torch.randn(5, 4, 6, dtype=torch.float64)
    y = torch.tensor([0, 1, 2, 3, 0])
    result = fisher_trace(model, batches(x, y, 3, 2))
    assert result.settings["looped_layers"] == result.settings["looped_parameters"] == ["leak"]
    assert result.settings["looped_share"] == 1 / sum(p.numel() for p in model.parameters())
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
    assert result.settings["looped_layers"] == ["net.2"]
    assert result.settings["looped_parameters"] == ["net.2.weight", "net.2.bias"]
    assert result.settings["looped_share"] == 30 / (35 + 30 + 1 + 18)
    assert_equals_loop(result, model, x, y)


class Stack(nn.Module):
    """Streams (N, T, *shape) through ``layers``, one timestep at a time or all of them as (T * N, ...), then summed up
    over time and through a linear layer; a tanh of the sum, so that early timesteps matter."""

    def __init__(self, shape, *layers, merged=False):
        super().__init__()
        self.layers, self.merged = nn.Sequential(*layers), merged
        with torch.no_grad():
            self.outward = nn.Linear(self.layers(torch.zeros(2, *shape)).flatten(1).shape[1], 4)
        for parameter in self.parameters():
            nn.init.normal_(parameter, 0.3, 0.4)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_(0.1, 0.2)
                module.running_var.uniform_(0.2, 0.8)

    def forward(self, inputs):
        x = inputs.transpose(0, 1)
        x = (
            self.layers(x.flatten(0, 1)).unflatten(0, x.shape[:2])
            if self.merged
            else torch.stack([*map(self.layers, x)])
        )
        return self.outward(torch.tanh(x.cumsum(0)).flatten(2)).cumsum(0)


KINDS = {
    "Linear": ((6,), lambda: [nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 5, bias=False)]),
    "Linear on more axes": ((3, 6), lambda: [nn.Linear(6, 5)]),
    "Conv1d": ((4, 9), lambda: [nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2)]),
    "Conv1d same": ((4, 9), lambda: [nn.Conv1d(4, 6, 3, padding="same", dilation=2)]),
    "Conv2d": ((4, 7, 6), lambda: [nn.Conv2d(4, 8, (3, 2), stride=(1, 2), padding=(2, 0), dilation=(2, 1), groups=4)]),
    "Conv2d depthwise": ((4, 5, 5), lambda: [nn.Conv2d(4, 4, 3, groups=4, bias=False), nn.Conv2d(4, 3, 1)]),
    "Conv2d valid": ((2, 5, 5), lambda: [nn.Conv2d(2, 3, 2, padding="valid")]),
    "Conv3d": ((2, 3, 4, 4), lambda: [nn.Conv3d(2, 3, 2, groups=1)]),
    "BatchNorm1d": ((6,), lambda: [nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 5)]),
    "BatchNorm1d with length": ((4, 5), lambda: [nn.BatchNorm1d(4)]),
    "BatchNorm2d": ((3, 4, 4), lambda: [nn.BatchNorm2d(3), nn.Tanh(), nn.Conv2d(3, 2, 2)]),
    "LayerNorm": ((6,), lambda: [nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 5)]),
    "LayerNorm of two axes": ((3, 4, 5), lambda: [nn.LayerNorm((4, 5), eps=0.1)]),
    "LayerNorm of a sequence": ((3, 6), lambda: [nn.LayerNorm(6, bias=False)]),
    "GroupNorm": ((6, 4, 4), lambda: [nn.GroupNorm(3, 6, eps=0.1), nn.Tanh(), nn.Conv2d(6, 2, 2)]),
    "GroupNorm without space": ((6,), lambda: [nn.GroupNorm(2, 6)]),
}


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_layer_is_contracted_exactly(kind, merged):
    """Against the loop over examples in float64, to 1e-10; also with T examples in a batch, and with groups."""
    torch.manual_seed(0)
    shape, layers = KINDS[kind]
    model = Stack(shape, *layers(), merged=merged).double().eval()
    x, y = torch.randn(6, 3, *shape, dtype=torch.float64), torch.arange(6) % 4
    for group_size, sizes in ((1, (1, 3, 2)), (2, (6,))):
        result = fisher_trace(model, batches(x, y, *sizes), group_size=group_size)
        assert result.settings["looped_layers"] == [] and result.settings["looped_share"] == 0
        assert_equals_loop(result, model, x, y, group_size=group_size)


def test_norms_of_spikingjelly_are_contracted():
    """(T, N, C, H, W), also where T, N and C are equal."""
    torch.manual_seed(0)
    net = nn.Sequential(layer.Conv2d(2, 4, 3), layer.GroupNorm(2, 4), networks.lif(v_threshold=0.3), nn.LayerNorm((3, 3)),
                        layer.Flatten(), layer.Linear(36, 4))  # fmt: skip
    model = from_spikingjelly(net).double().eval()
    nn.init.normal_(model.net[1].bias, 0.3, 0.3)
    x, y = networks.examples(8, size=5, steps=4, classes=4)
    result = fisher_trace(model, batches(x, y, 2, 4, 2))
    assert result.settings["looped_layers"] == []
    assert_equals_loop(result, model, x, y)


SLOW = {
    "ConvTranspose": ((2, 3, 3), lambda: [nn.ConvTranspose2d(2, 2, 2)], 2 * 2 * 4 + 2),
    "reflecting": ((2, 4, 4), lambda: [nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect")], 2 * 3 * 9 + 3),
    "same, even kernel": ((2, 4, 4), lambda: [nn.Conv2d(2, 3, 2, padding="same")], 2 * 3 * 4 + 3),
    "weight norm": ((6,), lambda: [nn.utils.parametrizations.weight_norm(nn.Linear(6, 5, bias=False))], 5 + 30),
}


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("kind", SLOW)
def test_other_layers_take_the_slow_path_and_the_settings_say_how_much(kind):
    torch.manual_seed(0)
    shape, layers, entries = SLOW[kind]
    model = Stack(shape, *layers()).double().eval()
    x, y = torch.randn(4, 3, *shape, dtype=torch.float64), torch.arange(4)
    settings = (result := fisher_trace(model, batches(x, y, 3, 1))).settings
    assert settings["looped_parameters"] == [name for name, _ in model.layers.named_parameters(prefix="layers")]
    assert settings["looped_share"] == entries / sum(p.numel() for p in model.parameters())
    assert_equals_loop(result, model, x, y)


def test_an_embedding_of_tokens_takes_the_slow_path():
    torch.manual_seed(0)
    model = Stack((6,), nn.Linear(6, 5)).double().eval()
    model.layers.insert(0, nn.Embedding(7, 6).double())
    x, y = torch.randint(0, 7, (4, 3), generator=torch.Generator().manual_seed(0)), torch.arange(4)
    result = fisher_trace(model, batches(x, y, 3, 1))
    assert result.settings["looped_layers"] == ["layers.0"]
    assert_equals_loop(result, model, x, y)


class Learning(neuron.SimpleBaseNode):
    """A leak for all neurons and a threshold for each channel."""

    def __init__(self, *shape):
        super().__init__(v_reset=0.0, surrogate_function=surrogate.Sigmoid(), detach_reset=False)
        self.leak, self.threshold = nn.Parameter(torch.tensor(0.7)), nn.Parameter(torch.full(shape, 0.3))

    def neuronal_charge(self, x):
        self.v = self.leak * self.v + x - self.threshold
        self.v_threshold = 0.0


NEURONS = {
    "PLIF": lambda *shape: neuron.ParametricLIFNode(v_threshold=0.3, detach_reset=False),
    "PLIF, decaying input": lambda *shape: neuron.ParametricLIFNode(init_tau=1.5, v_threshold=0.1, v_reset=None),
    "leak and thresholds": Learning,
}


@pytest.mark.parametrize("order", ["multi-step", "single-step"])
@pytest.mark.parametrize("name", NEURONS)
def test_parameters_in_neurons_of_spikingjelly_are_no_slow_path(name, order):
    torch.manual_seed(0)
    net = nn.Sequential(layer.Conv2d(2, 3, 3), NEURONS[name](3, 1, 1), layer.Flatten(), layer.Linear(27, 8),
                        NEURONS[name](8), layer.Linear(8, 4))  # fmt: skip
    model = from_spikingjelly(net, takes="time first" if order == "multi-step" else "timestep").double().eval()
    x, y = networks.examples(6, size=5, steps=3, classes=4)
    for group_size, sizes in ((1, (1, 3, 2)), (3, (6,))):
        result = fisher_trace(model, batches(x, y, *sizes), group_size=group_size)
        assert result.settings["looped_layers"] == []
        assert result.table.query("layer in ['net.1', 'net.4']")["trace"].min() > 0
        assert_equals_loop(result, model, x, y, group_size=group_size)


def test_parameters_in_neurons_of_snntorch_are_no_slow_path():
    """With a surrogate that keeps float64, which snnTorch's own do not."""
    snn = pytest.importorskip("snntorch")
    torch.manual_seed(0)
    options = dict(spike_grad=networks.Spike.apply, init_hidden=True, learn_beta=True, learn_threshold=True)
    net = nn.Sequential(
        nn.Conv2d(2, 3, 3), snn.Leaky(beta=0.7, threshold=0.4, **options), nn.Flatten(), nn.Linear(27, 8),
        snn.Synaptic(alpha=0.6, beta=torch.full((8,), 0.8), threshold=0.3, learn_alpha=True, **options),
        nn.Linear(8, 8), snn.RLeaky(beta=0.8, threshold=0.3, all_to_all=False, V=0.5, **options), nn.Linear(8, 4),
    )  # fmt: skip
    model = from_snntorch(net).double().eval()
    x, y = networks.examples(5, size=5, steps=3, classes=4)
    result = fisher_trace(model, batches(x, y, 2, 3))
    assert result.settings["looped_layers"] == []
    rows = result.table.query("layer in ['net.1', 'net.4', 'net.6', 'net.6.recurrent']")
    assert len(set(rows["layer"])) >= 3 and rows.query("timestep == 3")["trace"].min() > 0
    assert_equals_loop(result, model, x, y)


@pytest.mark.parametrize("shape", [(), (5,), (1, 5)])
def test_a_parameter_of_the_network_itself_is_no_slow_path(shape):
    """In a plain module, with any number of axes, beside a layer that is looped."""

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.inward, self.outward = nn.Linear(6, 5), nn.Linear(5, 4)
            self.leak, self.mixing = nn.Parameter(torch.full(shape, 0.7)), nn.Bilinear(5, 5, 5)

        def forward(self, inputs):
            v, logits = torch.zeros(len(inputs), 5, dtype=inputs.dtype), []
            for x in inputs.unbind(1):
                v = self.leak * v + self.inward(x)
                logits.append(self.outward(self.mixing(v.tanh(), v)))
            return torch.stack(logits)

    torch.manual_seed(0)
    model = Own().double()
    x, y = torch.randn(5, 3, 6, dtype=torch.float64), torch.arange(5) % 4
    result = fisher_trace(model, batches(x, y, 1, 4))
    assert result.settings["looped_layers"] == ["mixing"]
    found = traces(result)
    for (name, t), values in oracles.fisher_traces(model, x, y).items():
        assert found[name or "leak", t][0] == pytest.approx(sum(values) / 5, rel=1e-10, abs=1e-20), (name, t)


@pytest.mark.parametrize("kind", ["shared by two nodes", "mixes examples", "read by its size"])
def test_copies_are_right_or_not_believed(kind):
    class Node(neuron.SimpleBaseNode):
        def __init__(self, scale):
            super().__init__(v_threshold=0.3, v_reset=0.0)
            self.scale = scale

        def neuronal_charge(self, x):
            if kind == "mixes examples":  # two by two along all axes: two copies for two examples would fit as well
                x = (x.reshape(-1, 2) * self.scale.reshape(-1)[:2]).view_as(x)
            elif kind == "read by its size":
                x = x * self.scale.sum() / self.scale.numel()
            else:
                x = x * self.scale
            self.v = self.v + x

    torch.manual_seed(0)
    scale = nn.Parameter(torch.tensor([1.5, 0.8]) if kind == "mixes examples" else torch.tensor(1.5))
    net = nn.Sequential(layer.Linear(6, 8), Node(scale), layer.Linear(8, 8), Node(scale), layer.Linear(8, 4))
    model = from_spikingjelly(net).double()
    x, y = torch.randn(5, 3, 6, dtype=torch.float64), torch.arange(5) % 4
    result = fisher_trace(model, batches(x, y, 2, 3))
    assert result.settings["looped_layers"] == ([] if kind == "shared by two nodes" else ["net.1"])
    assert_equals_loop(result, model, x, y)


def test_a_network_that_means_something_else_in_single_step_mode_is_not_unrolled():
    class Mixer(nn.Module):
        """Takes time for granted: in single-step mode it would silently average over channels."""

        def forward(self, x):
            return x + x.mean(0, keepdim=True)

    torch.manual_seed(0)
    model = from_spikingjelly(
        nn.Sequential(layer.Linear(6, 8), networks.lif(v_threshold=0.2), Mixer(), layer.Linear(8, 3))
    )
    model = model.double()
    x, y = torch.randn(4, 3, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    result = fisher_trace(model, [(x, y)])
    assert not result.settings["one_graph_per_step"]
    assert_equals_loop(result, model, x, y)


def test_a_derived_node_that_overrides_one_step_mode_alone_is_not_unrolled():
    """SpikingJelly's multi-step mode ignores the override, and the model's own logits are what counts."""

    class Derived(neuron.LIFNode):
        def single_step_functional_forward(self, inputs, states, **kwargs):
            v = 0.6 * states[0] + inputs[0]
            spikes = self.surrogate_function(v - self.v_threshold)
            return (spikes,), (v - spikes, *states[1:])

    torch.manual_seed(0)
    model = from_spikingjelly(nn.Sequential(layer.Linear(6, 8), Derived(v_threshold=0.3), layer.Linear(8, 4))).double()
    x, y = torch.randn(4, 3, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    nn.init.zeros_(model.net[0].bias)
    x[0] = 0  # silent in both modes
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
        (dict(seed=None), r"seed is None; give a whole number of at least 0\."),
        (dict(seed=-1), r"seed is -1; give a whole number of at least 0\."),
        (dict(group_size=0), r"group_size is 0; give a whole number of at least 1\."),
        (dict(group_size=2.0), r"group_size is 2\.0; give a whole number"),
        (dict(group_size=5), r"group_size is 5 but there are only 4 examples; give at least one group\."),
        (dict(labels="guessed"), r"labels is 'guessed'; give one of 'true', 'sampled'\."),
        (dict(readout="last"), r"readout is 'last'; give one of 'prefix', 'instantaneous'\."),
        (
            dict(params=lambda name: False),
            r"params selects no trainable parameter of the model; it has: net\.0\.weight",
        ),
        (dict(params="conv"), r"params is 'conv'; give None .* or a function"),
        (dict(batches=[]), r"batches is empty; give at least one batch"),
        (dict(batches=iter([(X, Y)])), r"batches is a one-shot iterator; give a list"),
        (
            dict(batches=[(X, Y + 5)]),
            r"A batch has labels from 8 to 9, but the model has 5 classes; give labels from 0 to 4",
        ),
        (dict(batches=[(X, Y), (X, Y - 100)]), r"A batch has labels from -100 to -\d+, but the model has 5 classes"),
        (
            dict(batches=[(X, Y.float())]),
            r"Batch 0 has labels of type torch\.float32; give class numbers of type torch",
        ),
        (
            dict(batches=[(X, nn.functional.one_hot(Y))]),
            r"Batch 0 has labels of shape \(4, \d\); give one class number",
        ),
        (
            dict(batches=[(X, Y), (X[:, :3], Y)]),
            r"The model returned 3 timesteps where it returned 5 before; give streams",
        ),
        (
            dict(batches=[(X[:, :3], Y), (X, Y)]),
            r"The model returned 5 timesteps where it returned 3 before; give streams",
        ),
        (
            dict(batches=[(X.float(), Y)]),
            r"weights are torch\.float64 but the inputs torch\.float32, .*give inputs\.to",
        ),
        (
            dict(batches=[(X[:, 0], Y)]),
            r"does not take inputs of shape \(2, 2, 8, 8\), read as streams .*give num_steps",
        ),
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


class Reading(torch.nn.Module):
    """Two timesteps; spikes of ``enc`` are read back through ``enc.weight`` itself, by a function."""

    def __init__(self):
        super().__init__()
        self.enc, self.out = torch.nn.Linear(6, 8, bias=False), torch.nn.Linear(8, 5)
        self.back = torch.nn.Linear(6, 5, bias=False)

    def forward(self, x):
        currents = [self.enc(frame) for frame in x.unbind(1)]
        spikes = [(current > 0.5).to(current) for current in currents]
        return torch.stack(
            [self.out(c) + self.back(s @ self.enc.weight) for c, s in zip(currents, spikes, strict=True)]
        )


def test_a_weight_used_outside_its_layer_is_found_though_the_first_examples_do_not_use_it():
    """There the second use gives zero, so comparing their gradients alone would prove nothing."""
    torch.manual_seed(0)
    model = Reading().double()
    x, y = 3 * torch.randn(6, 2, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 4, 0])
    x[:3] *= 0.01
    result = fisher_trace(model, batches(x, y, 4, 2))
    assert result.settings["looped_layers"] == ["enc"]
    found = traces(result)
    for (name, t), values in oracles.fisher_traces(model, x, y).items():
        assert found[name, t][0] == pytest.approx(sum(values) / 6, rel=1e-10), (name, t)


class TwoOfItsOwn(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.leak, self.gain = (torch.nn.Parameter(torch.rand(())) for _ in range(2))
        self.read = torch.nn.Linear(6, 5)

    def forward(self, x):
        potential, logits = torch.zeros_like(x[:, 0]), []
        for frame in x.unbind(1):
            potential = self.leak * potential + self.gain * frame
            logits.append(self.read(potential))
        return torch.stack(logits)


def test_parameters_of_the_model_itself_have_a_row_each():
    torch.manual_seed(0)
    model = TwoOfItsOwn().double()
    x, y = torch.randn(5, 3, 6, dtype=torch.float64), torch.arange(5)
    found = traces(fisher_trace(model, batches(x, y, 5)))
    assert {name for name, _ in found} == {"leak", "gain", "read", "all"}
    for name in ("leak", "gain"):
        exact = []
        for n in range(5):
            loss = torch.nn.functional.cross_entropy(model(x[n : n + 1]).mean(0), y[n : n + 1])
            exact.append(float(torch.autograd.grad(loss, getattr(model, name))[0] ** 2))
        assert found[name, 3][0] == pytest.approx(sum(exact) / 5, rel=1e-10)
