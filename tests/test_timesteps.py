"""Accuracy at every timestep against loops; and where a layer's tensors hold the timesteps."""

import math

import networks
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from spikingjelly.activation_based import layer, neuron
from test_temporal import same, snapshot
from torch import nn

from snn_probe.drawing import over_time as time_figures
from snn_probe.probes.timesteps import placements, timestep_accuracy
from snn_probe.results import Result, combine
from snn_probe.temporal import from_spikingjelly, probing
from snn_probe.training import evaluate


def batches(x, y, *sizes):
    return list(zip(x.split(sizes), y.split(sizes), strict=True))


@pytest.mark.parametrize("num_steps", [None, 4])
def test_equals_a_loop_over_single_examples(num_steps):
    """Running mean of the first t logits, one example at a time; the last row is evaluate()."""
    model = networks.convolutional(num_steps)
    x, y = networks.examples(30, num_steps)
    result = timestep_accuracy(model, batches(x, y, 16, 13, 1))
    table, steps = result.table, num_steps or 5
    assert list(table.columns) == ["timestep", "accuracy", "stderr", "loss"]
    assert list(table["timestep"]) == list(range(1, steps + 1))
    with probing(model), torch.no_grad():
        for t, row in enumerate(table.itertuples(), 1):
            hits, loss = [], []
            for n in range(30):
                mean = sum(model(x[n : n + 1])[:t]) / t
                hits.append(float(mean.argmax() == y[n]))
                loss.append(-float(mean.log_softmax(-1)[0, y[n]]))
            a = sum(hits) / 30
            assert row.accuracy == pytest.approx(a, rel=1e-12)
            assert row.stderr == pytest.approx(math.sqrt(a * (1 - a) / 30), rel=1e-12)
            assert row.loss == pytest.approx(sum(loss) / 30, rel=1e-10)
    assert table["accuracy"].max() > 0
    whole = evaluate(model, batches(x, y, 30))
    assert (table["accuracy"].iloc[-1], table["loss"].iloc[-1]) == pytest.approx(
        (whole.accuracy, whole.loss), rel=1e-12
    )
    assert result.settings == {"num_steps": None, "model_num_steps": steps, "num_examples": 30}


@pytest.mark.parametrize("num_steps", [1, 3, 4, 9])
def test_a_static_image_may_be_shown_for_longer_or_shorter(num_steps):
    """Each row equals the last row of a network that simulates just so many timesteps."""
    x, y = networks.examples(12, 4)
    model = networks.convolutional(4)
    table = timestep_accuracy(model, batches(x, y, 7, 5), num_steps=num_steps).table
    assert list(table["timestep"]) == list(range(1, num_steps + 1)) and model.num_steps == 4
    for row in table.itertuples():
        whole = evaluate(networks.convolutional(row.timestep), [(x, y)])
        assert (row.accuracy, row.loss) == pytest.approx((whole.accuracy, whole.loss), rel=1e-10)


def test_streams_may_be_read_for_shorter_only():
    x, y = networks.examples(6)
    whole = timestep_accuracy(networks.convolutional(), [(x, y)]).table
    short = timestep_accuracy(networks.convolutional(), [(x, y)], num_steps=3).table
    assert short.equals(whole.head(3))
    with pytest.raises(
        ValueError, match=r"num_steps is 6, but the streams have 5 timesteps; give a number from 1 to 5"
    ):
        timestep_accuracy(networks.convolutional(), [(x, y)], num_steps=6)


@pytest.mark.parametrize("calls", [None, *range(1, 12)])
@pytest.mark.parametrize("num_steps", [None, 7])
def test_the_model_is_left_as_it_was_also_after_a_failure(calls, num_steps):
    model = networks.convolutional(4)
    model.net[3].eval()
    count = 0

    def fail(module, args):
        nonlocal count
        count += 1
        if count == calls:
            raise KeyError("planted")

    handle = model.net[-1].register_forward_pre_hook(fail)
    before = snapshot(model)
    try:
        timestep_accuracy(model, batches(*networks.examples(9, 4), *[1] * 9), num_steps=num_steps)
        assert calls is None and count >= 11
    except KeyError:
        assert calls is not None
    assert same(before, snapshot(model)) and model.num_steps == 4
    handle.remove()


class Ahead(nn.Module):
    """Logits at every timestep depend on how many there are."""

    def __init__(self):
        super().__init__()
        self.num_steps, self.linear = 2, nn.Linear(3, 4).double()

    def forward(self, x):
        return self.linear(x).expand(self.num_steps, len(x), 4) * self.num_steps


class Fixed(Ahead):
    """A weight for each timestep."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(2, 1, 1, dtype=torch.float64))

    def forward(self, x):
        return self.linear(x).expand(self.num_steps, len(x), 4) * self.gain


X, Y = networks.examples(4, 4)
FLAT = [(torch.ones(2, 3, dtype=torch.float64), torch.tensor([0, 1]))]


def nan_model():
    model = networks.convolutional(4)
    model.net[-1].bias.data[0] = math.nan
    return model


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (dict(num_steps=0), r"num_steps is 0; give a whole number of at least 1\."),
        (dict(num_steps=2.0), r"num_steps is 2\.0; give a whole number"),
        (dict(num_steps=True), r"num_steps is True; give a whole number"),
        (
            dict(num_steps=3, model=Ahead(), batches=FLAT),
            r"num_steps is 3, but with it the model gives other logits for its first",
        ),
        (
            dict(num_steps=3, model=Fixed(), batches=FLAT),
            r"num_steps is 3, but the model runs at 2 timesteps only \(.*\); give None",
        ),
        (dict(batches=[]), r"batches is empty; give at least one batch"),
        (dict(batches=[(X * math.nan, Y)]), r"Batch 0 contains NaN or infinite inputs"),
        (dict(model=nan_model()), r"The model's logits are not finite; probe a checkpoint from before"),
    ],
)
def test_bad_arguments_get_one_sentence(arguments, sentence):
    given = {"model": networks.convolutional(4), "batches": [(X, Y)], **arguments}
    with pytest.raises(ValueError, match=sentence):
        timestep_accuracy(given.pop("model"), given.pop("batches"), **given)
    assert getattr(given.get("model"), "num_steps", 2) == 2


# Where the tensors hold the timesteps


class Uses(nn.Module):
    """A linear layer used in one of the ways that occur, on streams (N, T, F), T = F = 3."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.linear = kind, nn.Linear(3, 3)

    def forward(self, x):
        n, t = x.shape[:2]
        first = x.transpose(0, 1)
        return {
            "time, examples": lambda: self.linear(first),
            "examples, time": lambda: self.linear(x).transpose(0, 1),
            "merged time, examples": lambda: self.linear(first.flatten(0, 1)).view(t, n, 3),
            "merged examples, time": lambda: self.linear(x.flatten(0, 1)).view(n, t, 3).transpose(0, 1),
            "examples": lambda: torch.stack([self.linear(y) for y in first]),
            "once": lambda: self.linear(x[:, 0]).expand(t, n, 3),
            "once, with an axis": lambda: self.linear(first[:1]).expand(t, n, 3),
            "partly": lambda: torch.stack([self.linear(first[0]), self.linear(first[1]), first[2]]),
        }[self.kind]()


@pytest.mark.parametrize("kind", ["time, examples", "examples, time", "merged time, examples", "merged examples, time"])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_order_of_time_and_examples_is_found(kind, n):
    x = torch.randn(n, 3, 3, generator=torch.Generator().manual_seed(0))
    model = Uses(kind)
    (placement,) = placements(model, {"linear": model.linear}, x, 3).values()
    assert placement.order == kind or n == 1
    shown = {
        "time, examples": x.transpose(0, 1),
        "examples, time": x,
        "merged time, examples": x.transpose(0, 1).flatten(0, 1),
    }
    assert (
        torch.equal(placement.arrange(shown.get(kind, x.flatten(0, 1))), x.transpose(0, 1)) and not placement.stepwise
    )


def test_layers_called_once_per_timestep_or_once_for_all():
    x = torch.randn(3, 3, 3, generator=torch.Generator().manual_seed(0))
    found = {}
    for kind in ("examples", "once", "once, with an axis"):
        model = Uses(kind)
        found[kind] = placements(model, {"linear": model.linear}, x, 3)["linear"]
    assert [p.stepwise for p in found.values()] == [True, False, False]
    assert [len(p.inputs) for p in found.values()] == [3, 1, 1]
    assert all(p.arrange(x[None] if p.order == "time, examples" else x).shape == (1, 3, 3, 3) for p in found.values())
    model = Uses("partly")
    with pytest.raises(
        ValueError, match=r"Layer 'linear' is called 2 times, first with an input of shape \(2, 3\) for 2"
    ):
        placements(model, {"linear": model.linear}, x, 3)


def test_a_convolution_knows_its_own_axes():
    """2 channels and T = 2: (N, 2, H, W) is an image, not a stream."""
    conv = layer.Conv2d(2, 4, 3)

    class Once(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.lif = conv, networks.lif()

        def forward(self, x):
            self.lif.reset()
            y = self.conv(x)
            return torch.stack([self.lif(y).mean((2, 3)) for _ in range(2)])

    model = Once()
    found = placements(model, {"conv": conv, "lif": model.lif}, torch.rand(3, 2, 5, 5), 2)
    assert list(found) == ["conv", "lif"]
    assert (found["conv"].order, found["conv"].stepwise, found["lif"].stepwise) == ("examples", False, True)


def test_layers_that_are_not_used_are_left_out_and_order_is_that_of_use():
    net = nn.Sequential(layer.Linear(3, 3), neuron.IFNode(), layer.Linear(3, 2))
    net.spare = None
    model = from_spikingjelly(net)
    layers = {name: m for name, m in reversed(list(model.named_modules())) if isinstance(m, nn.Linear)}
    found = placements(model, {**layers, "spare": nn.Linear(2, 2)}, torch.rand(2, 4, 3), 4)
    assert list(found) == ["net.0", "net.2"]


def test_what_is_not_a_tensor_is_refused():
    class Keyword(Uses):
        def forward(self, x):
            return self.linear(input=x).transpose(0, 1)

    model = Keyword("")
    with pytest.raises(ValueError, match=r"Layer 'linear' has no tensor as first input or output; call it as layer"):
        placements(model, {"linear": model.linear}, torch.rand(2, 3, 3), 3)


# Figures


def measured(method, steps=6, trained=4):
    t = np.arange(1, steps + 1)
    table = pd.DataFrame({"timestep": t, "accuracy": t / 10, "stderr": 0.01, "loss": 1 / t})
    return Result("timestep_accuracy", table, {}, {"run": method, "config": {"method": method, "num_steps": trained}})


def test_accuracy_over_timesteps():
    both = combine([measured("sdt"), measured("trt")])
    ax = time_figures.timestep_accuracy(both, Figure().subplots())
    handles = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    assert list(handles) == ["SDT", "TRT", "band: ±1 standard error, dotted: T of training"]
    assert list(ax.lines[0].get_ydata()) == pytest.approx([10, 20, 30, 40, 50, 60])
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == pytest.approx((9, 61))
    assert list(ax.lines[-1].get_xdata()) == [4, 4]  # one line for the T of both
    assert ax.get_ylabel() == "Accuracy (%)" and list(ax.get_xticks()) == [1, 2, 3, 4, 5, 6]
    alone = time_figures.timestep_accuracy(measured("sdt").table, Figure().subplots())
    assert alone.get_legend_handles_labels()[1] == ["band: ±1 standard error"] and len(alone.lines) == 1
    for width in (3.25, 6.75):
        assert time_figures.draw("timestep_accuracy", both, width=width).get_figwidth() == width
    with pytest.raises(ValueError, match=r"no column 'stderr'; give the table of a timestep_accuracy result"):
        time_figures.timestep_accuracy(both.drop(columns="stderr"), Figure().subplots())
