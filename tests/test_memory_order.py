"""Channels-last inputs: the same values, taken where the network takes them, and the same answers."""

from contextlib import nullcontext

import networks
import pytest
import torch
from spikingjelly.activation_based import layer, neuron
from torch import nn

from snn_probe.evaluation import evaluate
from snn_probe.neurons.sharing import order_kept
from snn_probe.objectives import SDT, TET
from snn_probe.probes import loss_slice
from snn_probe.probes.memory_order import best_order, channels_last
from snn_probe.temporal import from_spikingjelly, probing


@pytest.mark.parametrize(("shape", "outermost"), [((5, 3, 4, 6), 0), ((5, 1, 4, 6), 0), ((5, 2, 3, 4, 6), 1)])
def test_the_same_values_in_another_order(shape, outermost):
    x = torch.randn(shape)
    found = channels_last(x)
    assert torch.equal(found, x) and found.stride(-3) == 1
    assert max(range(x.ndim), key=found.stride) == outermost  # streams lie time first


def test_every_timestep_of_a_stream_is_channels_last():
    frame = channels_last(torch.randn(5, 2, 3, 4, 6)).transpose(0, 1)[1]
    assert frame.is_contiguous(memory_format=torch.channels_last)
    merged = channels_last(torch.randn(5, 2, 3, 4, 6)).transpose(0, 1).flatten(0, 1)
    assert merged.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("channels", [1, 2])
def test_images_stay_channels_last_through_the_layers(channels):
    """Those with one channel too, whose order SpikingJelly's merging of axes forgets."""
    model = networks.convolutional(4, channels=channels)
    stay = order_kept() if channels == 1 else nullcontext()
    x = torch.rand(3, channels, 8, 8, dtype=torch.float64)
    seen = []
    for part in list(model.net)[1:7]:
        part.register_forward_pre_hook(lambda module, args: seen.append(args[0][0].stride(1)))
    with torch.no_grad(), stay:
        expected = model(x)
        there = [stride > 1 for stride in seen]
        assert torch.allclose(model(channels_last(x)), expected, rtol=1e-12, atol=1e-12)
    assert all(there) and set(seen[len(there) + 1 :]) == {1}  # the batch norm comes before what follows the images


class Flat(nn.Module):
    """Flattens space with ``view``, which channels last refuses."""

    def forward(self, x):
        return x.view(*x.shape[:3], -1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("sizes", [(1,), (1, 4), (5,)])
@pytest.mark.parametrize("num_steps", [1, 3])
def test_one_example_does_not_hide_that_the_order_is_refused(channels, sizes, num_steps):
    torch.manual_seed(0)
    net = nn.Sequential(layer.Conv2d(channels, 4, 3, padding=1), neuron.IFNode(v_threshold=0.1), layer.AvgPool2d(2), Flat(),
                        layer.Flatten(), layer.Linear(64, 3))  # fmt: skip
    model = from_spikingjelly(net, num_steps)
    x, labels = torch.rand(sum(sizes), channels, 8, 8), torch.arange(sum(sizes)) % 3
    batches = list(zip(x.split(sizes), labels.split(sizes), strict=True))
    found = loss_slice(model, batches, [SDT()], alphas=[0.0]).table["loss"][0]
    assert found == pytest.approx(SDT()(model(x), labels, {}).item(), rel=1e-5)
    moved = [(x.clone(memory_format=torch.channels_last), y) for x, y in batches] if channels == 1 else batches
    assert evaluate(model, moved).loss == pytest.approx(SDT()(model(x), labels, {}).item(), rel=1e-5)


class Viewing(nn.Module):
    """Two timesteps of a linear read-out that flattens with ``view``."""

    def __init__(self):
        super().__init__()
        self.conv, self.read = nn.Conv2d(2, 3, 3), nn.Linear(3 * 6 * 6, 4)

    def forward(self, x):
        x = self.conv(x)
        return torch.stack([self.read(x.view(len(x), -1))] * 2)


def test_a_network_that_refuses_it_keeps_its_inputs():
    model, x = Viewing(), torch.randn(3, 2, 8, 8)
    order = best_order(model, x[:2])
    assert order(x) is x
    batches = [(x, torch.tensor([0, 1, 2]))]
    found = loss_slice(model, batches, [SDT()], alphas=[0.0]).table["loss"][0]
    assert found == pytest.approx(SDT()(model(x), batches[0][1], {}).item(), rel=1e-6)


@pytest.mark.parametrize("inputs", [torch.randn(3, 7), torch.randint(0, 9, (3, 2, 4, 4)), torch.randn(3, 2, 4)])
def test_other_inputs_stay(inputs):
    assert best_order(nn.Identity(), inputs)(inputs) is inputs


@pytest.mark.parametrize("num_steps", [None, 4])
def test_the_same_losses(num_steps):
    """In float64, where no spike flips by rounding."""
    model = networks.convolutional(num_steps)
    x, labels = networks.examples(8, num_steps)
    order = best_order(model, x[:2])
    assert order(x).stride(-3) == 1
    with probing(model), torch.no_grad():
        logits = model(x)
        assert torch.allclose(model(order(x)), logits, rtol=1e-12, atol=1e-12)
    found = loss_slice(model, [(x, labels)], [TET()], alphas=[0.0, 0.5]).table["loss"]
    assert found[0] == pytest.approx(TET()(logits, labels, {}).item(), rel=1e-12)
