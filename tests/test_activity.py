"""Firing rates, synaptic operations and energy against loops over neurons and connections."""

import math
from itertools import product

import networks
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import nn

from snn_probe.drawing import over_time as time_figures
from snn_probe.drawing.activity import whisker
from snn_probe.probes.activity import AC_PJ, MAC_PJ, _fan_out, energy_ratio, spiking_activity
from snn_probe.results import Result, combine, load, save
from snn_probe.temporal import from_spikingjelly, probing
from snn_probe.training import evaluate


def batches(x, y, *sizes):
    return list(zip(x.split(sizes), y.split(sizes), strict=True))


def values(result, column):
    return {(r.layer, r.timestep): getattr(r, column) for r in result.table.itertuples()}


def connections(conv, shape):
    """For every input (channel, position) of a zero-padded convolution, how many outputs it reaches, pair by pair."""
    space = shape[1:]
    dims = range(len(space))
    size, stride, pad, dilation = conv.kernel_size, conv.stride, conv.padding, conv.dilation
    out = [(space[d] + 2 * pad[d] - dilation[d] * (size[d] - 1) - 1) // stride[d] + 1 for d in dims]
    reached = torch.zeros(shape, dtype=torch.float64)
    inward, outward = conv.in_channels // conv.groups, conv.out_channels // conv.groups
    for o, i in product(range(conv.out_channels), range(conv.in_channels)):
        if o // outward != i // inward:
            continue
        for position, tap in product(product(*map(range, out)), product(*map(range, size))):
            at = [position[d] * stride[d] - pad[d] + tap[d] * dilation[d] for d in dims]
            if all(0 <= at[d] < space[d] for d in dims):
                reached[i, *at] += 1
    return reached


@pytest.mark.parametrize(
    ("conv", "space"),
    [
        (nn.Conv2d(2, 3, 3), (5, 6)),
        (nn.Conv2d(2, 3, 3, padding=1), (4, 4)),
        (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), groups=2), (6, 5)),
        (nn.Conv2d(3, 3, 3, dilation=2, padding=2, groups=3), (6, 6)),
        (nn.Conv2d(1, 2, 2, stride=3), (6, 5)),  # pixels between the kernels reach nothing
        (nn.Conv1d(2, 4, 5, stride=2, padding=3), (9,)),
        (nn.Conv3d(2, 2, 2, stride=(1, 2, 1), padding=(0, 1, 1)), (3, 3, 2)),
        (layer.Conv2d(2, 3, 1, stride=2), (5, 5)),
    ],
)
def test_fan_out_equals_the_connections_counted_one_by_one(conv, space):
    expected = connections(conv, (conv.in_channels, *space))
    assert torch.equal(_fan_out(conv, space).expand(conv.in_channels, *space), expected)


def test_fan_out_of_other_paddings():
    """Circular: nothing is lost at a border, 9 taps each. "same" is zero padding: 2 of 3 taps at the ends."""
    assert torch.equal(
        _fan_out(nn.Conv2d(2, 5, 3, padding=1, padding_mode="circular"), (4, 4)), torch.full((4, 4), 45.0).double()
    )
    assert _fan_out(nn.Conv1d(2, 5, 3, padding="same"), (4,)).tolist() == [10, 15, 15, 10]
    assert _fan_out(nn.Conv1d(2, 5, 3, padding="valid"), (4,)).tolist() == [5, 10, 10, 5]


def loop(model, x, num_steps):
    """synops and firing rates of networks.convolutional, one example and timestep at a time."""
    model.eval()
    functional.set_step_mode(model.net, "s")
    steps, n = num_steps or x.shape[1], len(x)
    synops, rates = {}, {}
    with torch.no_grad():
        for i in range(n):
            functional.reset_net(model.net)
            for t in range(steps):
                z = x[i : i + 1] if num_steps else x[i : i + 1, t]
                for j, module in enumerate(model.net):
                    key = (f"net.{j}", t + 1)
                    if isinstance(module, nn.Conv2d):
                        active = torch.ones_like(z[0]) if j == 0 else (z[0] != 0).double()
                        synops[key] = synops.get(key, 0) + float((active * connections(module, z[0].shape)).sum()) / n
                    if isinstance(module, nn.Linear):
                        synops[key] = synops.get(key, 0) + sum(float(v) != 0 for v in z[0]) * module.out_features / n
                    z = module(z)
                    if isinstance(module, neuron.BaseNode):
                        rates[key] = rates.get(key, 0) + float(z.mean()) / n
    functional.reset_net(model.net)
    functional.set_step_mode(model.net, "m")
    return synops, rates


@pytest.mark.parametrize("num_steps", [None, 4])
def test_equals_loops_over_neurons_and_connections(num_steps):
    model = networks.convolutional(num_steps)
    x, y = networks.examples(5, num_steps)
    result = spiking_activity(model, batches(x, y, 2, 2, 1))
    synops, rates = loop(networks.convolutional(num_steps), x, num_steps)
    steps = num_steps or 5
    assert list(result.table.columns) == ["layer", "timestep", "firing_rate", "synops", "energy_pj"]
    order = [f"net.{i}" for i in (0, 2, 4, 6, 8, 10, 11)]
    assert list(result.table["layer"]) == [name for name in [*order, "all"] for _ in range(steps)]
    energy = {key: value * (4.6 if key[0] == "net.0" else 0.9) for key, value in synops.items()}
    for column, expected in (("firing_rate", rates), ("synops", synops), ("energy_pj", energy)):
        found = values(result, column)
        for key, value in found.items():
            if key[0] != "all":
                assert value == pytest.approx(expected.get(key, math.nan), rel=1e-12, nan_ok=True), (column, key)
        if column != "firing_rate":
            for t in range(1, steps + 1):
                assert found["all", t] == pytest.approx(sum(v for (_, s), v in expected.items() if s == t), rel=1e-12)
    neurons = {"net.2": 4 * 64, "net.6": 6 * 4, "net.10": 8}
    for t in range(1, steps + 1):
        mean = sum(rates[name, t] * size for name, size in neurons.items()) / sum(neurons.values())
        assert values(result, "firing_rate")["all", t] == pytest.approx(mean, rel=1e-12)
    whole = result.table[result.table["layer"] == "all"]["firing_rate"].mean()
    assert whole == pytest.approx(evaluate(model, [(x, y)]).firing_rate, rel=1e-12) and whole > 0
    assert result.settings["mac_layer"] == "net.0" and result.settings["uncounted_layers"] == []
    assert MAC_PJ == 4.6 and AC_PJ == 0.9


def test_dense_counts_and_energy_ratio(tmp_path):
    """Dense counts by hand: conv 4x4 inner 8x8... counted one by one; the linear layers 48 x 4 and 8 x 5."""
    model = networks.convolutional(4)
    result = spiking_activity(model, [networks.examples(3, 4)])
    dense = {
        "net.0": float(connections(model.net[0], (2, 8, 8)).sum()),
        "net.4": float(connections(model.net[4], (4, 4, 4)).sum()),
        "net.8": 24.0 * 8,
        "net.11": 8.0 * 5,
    }
    assert result.settings["dense_macs"] == dense
    assert values(result, "synops")["net.0", 3] == dense["net.0"]  # direct encoding: at each timestep
    energy = result.table[result.table["layer"] == "all"]["energy_pj"].sum()
    assert energy_ratio(result) == pytest.approx(energy / (4.6 * sum(dense.values())), rel=1e-12)
    save(result, tmp_path / "activity.json")
    assert energy_ratio(load(tmp_path / "activity.json")) == energy_ratio(result)
    with pytest.raises(ValueError, match=r"energy_ratio: got a result of 'fisher_trace'; give one of spiking_activity"):
        energy_ratio(Result("fisher_trace", result.table, {}))


def test_a_dense_network_that_always_fires_costs_what_its_connections_say():
    """Two neurons that fire at every step: 2 x 3 accumulates; the 4 x 2 inputs before, one of them zero, are MACs."""
    net = nn.Sequential(layer.Linear(4, 2), neuron.IFNode(v_threshold=0.5), layer.Linear(2, 3))
    net[0].weight.data.zero_()
    net[0].bias.data.fill_(1.0)
    model = from_spikingjelly(net)
    x = torch.tensor([[[1.0, 0.0, 2.0, 3.0]] * 2])
    table = spiking_activity(model, [(x, torch.tensor([0]))]).table
    assert list(table["synops"].dropna()) == [8, 8, 6, 6, 14, 14]
    assert list(table["energy_pj"].dropna()) == pytest.approx([36.8, 36.8, 5.4, 5.4, 42.2, 42.2])
    assert list(table["firing_rate"].dropna()) == [1, 1, 1, 1]


def test_a_layer_behind_spikes_is_not_analog():
    """A network that turns its input into spikes first has no multiply-accumulates."""
    torch.manual_seed(0)
    net = nn.Sequential(
        neuron.IFNode(v_threshold=0.5), layer.Linear(3, 2), networks.lif(v_threshold=0.1), layer.Linear(2, 2)
    )
    x = torch.tensor([[[0.9, 0.1, 0.1], [0.1, 0.1, 0.9]]])
    result = spiking_activity(from_spikingjelly(net), [(x, torch.tensor([0]))])
    assert result.settings["mac_layer"] is None
    assert values(result, "synops")["net.1", 1] == 2 and values(result, "energy_pj")["net.1", 1] == 1.8


class Stepwise(nn.Module):
    """The network of networks.convolutional called one timestep at a time by a model of the user's own."""

    def __init__(self):
        super().__init__()
        self.net = networks.convolutional().net
        functional.set_step_mode(self.net, "s")

    def forward(self, x):
        functional.reset_net(self.net)
        return torch.stack([self.net(y) for y in x.unbind(1)])


def test_a_network_called_step_by_step_gives_the_same_answer():
    x, y = networks.examples(5)
    expected = spiking_activity(networks.convolutional(), [(x, y)])
    found = spiking_activity(Stepwise().double(), batches(x, y, 3, 2))
    pd.testing.assert_frame_equal(found.table, expected.table, rtol=1e-12)
    assert found.settings["dense_macs"] == expected.settings["dense_macs"]


def test_a_layer_used_twice_counts_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.inward, self.again = layer.Linear(3, 3, step_mode="m"), nn.Linear(3, 3)
            self.lif, self.extra = networks.lif(step_mode="m", v_threshold=0.1), nn.ConvTranspose1d(1, 1, 1)
            self.extra.requires_grad_(False)

        def forward(self, x):
            self.lif.reset()
            s = self.lif(self.inward(x.transpose(0, 1)))
            return self.again(self.again(s))

    torch.manual_seed(0)
    x = torch.rand(2, 4, 3)
    result = spiking_activity(Twice(), [(x, torch.tensor([0, 1]))])
    assert result.settings["dense_macs"] == {"inward": 9, "again": 18}
    assert result.settings["uncounted_layers"] == ["extra"]
    rates = values(result, "firing_rate")
    for t in range(1, 5):
        assert values(result, "synops")["again", t] == pytest.approx(9 + 9 * rates["lif", t])


def test_a_spike_counts_by_its_size():
    """A ternary neuron's negative spikes do not cancel the positive ones."""

    class Signs(nn.Module):
        def __init__(self):
            super().__init__()
            self.surrogate_function = surrogate.ATan()

        def forward(self, x):
            return self.surrogate_function(x - 0.5) - self.surrogate_function(-x - 0.5)

    net = nn.Sequential(Signs(), layer.Linear(4, 2))
    x = torch.tensor([[[1.0, -1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]]])
    found = spiking_activity(from_spikingjelly(net), [(x, torch.tensor([0]))])
    assert [values(found, "firing_rate")["net.0", t] for t in (1, 2)] == [0.5, 0.25]
    assert [values(found, "synops")["net.1", t] for t in (1, 2)] == [4, 2]


def test_any_split_into_batches_gives_the_same_answer():
    x, y = networks.examples(7)
    reference = spiking_activity(networks.convolutional(), batches(x, y, 7)).table
    for sizes in ((1,) * 7, (3, 4), (6, 1)):
        found = spiking_activity(networks.convolutional(), batches(x, y, *sizes)).table
        pd.testing.assert_frame_equal(found, reference, rtol=1e-12)


class Silent(nn.Module):
    """Has a spiking layer and does not use it."""

    def __init__(self):
        super().__init__()
        self.lif, self.linear = networks.lif(), nn.Linear(2, 2)

    def forward(self, x):
        return self.linear(x).transpose(0, 1)


X, Y = networks.examples(4)


def nan_model():
    model = networks.convolutional()
    model.net[-1].bias.data[0] = math.nan
    return model


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            dict(model=networks.Recurrent().double(), batches=[(X[:, :, 0, 0, :6], Y)]),
            r"The model has no spiking layers",
        ),
        (dict(model=Silent(), batches=[(torch.rand(2, 3, 2), Y[:2])]), r"None of the model's spiking layers is used"),
        (
            dict(batches=[(X, Y), (X[:, :4], Y)]),
            r"returned 4 timesteps where it returned 5 before; give streams of one",
        ),
        (dict(batches=[]), r"batches is empty; give at least one batch"),
        (dict(batches=iter([(X, Y)])), r"batches is a one-shot iterator; give a list"),
        (dict(batches=[(X * math.nan, Y)]), r"Batch 0 contains NaN or infinite inputs"),
        (dict(model=nan_model()), r"The model's logits are not finite; probe a checkpoint from before"),
    ],
)
def test_bad_arguments_get_one_sentence(arguments, sentence):
    given = {"model": networks.convolutional(), "batches": [(X, Y)], **arguments}
    with pytest.raises(ValueError, match=sentence):
        spiking_activity(given.pop("model"), given.pop("batches"), **given)


def test_inside_probing_nothing_is_drawn():
    """The kernel of ones takes no random numbers."""
    model = networks.convolutional()
    with probing(model):
        before = torch.get_rng_state()
        _fan_out(model.net[0], (4, 4))
        assert torch.equal(before, torch.get_rng_state())


# Figures


def measured(method, rate):
    rows = [
        ("conv1", t, math.nan, 100.0, 460.0) for t in (1, 2)
    ] + [("lif1", t, rate * t, math.nan, math.nan) for t in (1, 2)] + [
        ("fc", t, math.nan, 1000 * rate * t, 900 * rate * t) for t in (1, 2)
    ] + [("all", t, rate * t, 1.0, 1.0) for t in (1, 2)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["layer", "timestep", "firing_rate", "synops", "energy_pj"])
    return Result("spiking_activity", table, {}, {"run": method, "config": {"method": method}})


def test_bars_of_rates_and_energy():
    both = combine([measured("sdt", 0.2), measured("trt", 0.1)])
    ax = time_figures.firing_rate(both, Figure().subplots())
    assert [bar.get_height() for bar in ax.patches] == pytest.approx([0.3, 0.15])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["lif1"]
    assert [c.get_label() for c in ax.containers if c.get_label() in ("SDT", "TRT")] == ["SDT", "TRT"]
    low, high = ax.containers[0].lines[2][0].get_segments()[0][:, 1]
    assert (low, high) == pytest.approx((0.2, 0.4))  # the two timesteps
    thick, thin = (whisker(ax, width)["elinewidth"] for width in (0.8, 0.02))
    assert thick == 0.8 and 0 < thin < 0.25 * 72 * 0.775 * 6.4 * 0.02 / 1.2  # a whisker leaves its bar to be seen
    ax = time_figures.energy(both, Figure().subplots())
    assert [bar.get_height() for bar in ax.patches] == pytest.approx([920, 540, 920, 270])
    assert [bool(bar.get_hatch()) for bar in ax.patches] == [True, False, True, False]
    shown = ax.get_legend_handles_labels()[1]
    assert shown == ["SDT: total 1.46 nJ", "TRT: total 1.19 nJ", "hatched: multiply-accumulates"]
    assert ax.get_ylabel() == "Energy per example (pJ)"
    alone = time_figures.energy(measured("sdt", 20.0).table, Figure().subplots())
    assert alone.get_legend_handles_labels()[1][0] == "total 54.9 nJ" and "(nJ)" in alone.get_ylabel()


def test_long_layer_names_stand_upright_and_make_the_figure_higher():
    long = measured("sdt", 0.2).table.replace(
        {"layer": {"conv1": "layer1.0.convolution1", "fc": "classifier.linear.last"}}
    )
    short = time_figures.draw("energy", measured("sdt", 0.2).table)
    figure = time_figures.draw("energy", long)
    assert {label.get_rotation() for label in figure.axes[0].get_xticklabels()} == {90.0}
    assert {label.get_rotation() for label in short.axes[0].get_xticklabels()} == {0.0}
    assert figure.get_figheight() > short.get_figheight() + 1
    assert time_figures.figure_names("spiking_activity", long) == ["firing_rate", "energy"]
    with pytest.raises(ValueError, match=r"no column 'synops'; give the table of a spiking_activity result"):
        time_figures.energy(long.drop(columns="synops"), Figure().subplots())
