"""Networks by name: the temporal contract, parameter counts, seeds."""

import pytest
import torch

from snn_probe.models import MODELS, build
from snn_probe.models.vgg import vggsnn
from snn_probe.temporal import check_temporal, spiking_layers

SHAPES = {"tiny": (2, 16, 16), "vggsnn": (2, 32, 32)}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("num_steps", [None, 3])
def test_every_network_keeps_the_temporal_contract(name, num_steps):
    model = build(name, input_shape=SHAPES[name], num_classes=10, num_steps=num_steps)
    lead = (3,) if num_steps else (3, 3)
    assert check_temporal(model, 3 * torch.rand(*lead, *SHAPES[name]), num_classes=10, num_steps=3) == 3
    assert spiking_layers(model)


@pytest.mark.parametrize("name", MODELS)
def test_weights_come_from_the_seed_alone(name):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    a = build(name, input_shape=SHAPES[name], num_classes=10, num_steps=2, seed=3).state_dict()
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(6)
    b = build(name, input_shape=SHAPES[name], num_classes=10, num_steps=4, seed=3).state_dict()
    c = build(name, input_shape=SHAPES[name], num_classes=10, num_steps=2, seed=4).state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(a["net.0.weight" if name == "vggsnn" else "net.conv1.weight"],
                           c["net.0.weight" if name == "vggsnn" else "net.conv1.weight"])  # fmt: skip


def test_parameter_counts():
    """tiny by hand: 1*32*9 + 2*32 + 32*64*9 + 2*64 + 64*2*2*10 + 10; vggsnn as published: 9.27 M."""
    tiny = build("tiny", input_shape=(1, 8, 8), num_classes=10, num_steps=4)
    assert sum(p.numel() for p in tiny.parameters()) == 288 + 64 + 18432 + 128 + 2560 + 10
    vgg = vggsnn(input_shape=(2, 48, 48), num_classes=10)
    assert round(sum(p.numel() for p in vgg.parameters()) / 1e6, 2) == 9.27


def test_the_neuron_is_the_papers():
    """h[t] = v[t-1]/2 + x[t]; spike at h >= 1, hard reset; derivative max(0, 1 - |h - 1|); reset not detached.

    x = (0.8, 0.8): h1 = 0.8 (no spike), h2 = 0.4 + 0.8 = 1.2 (spike).
    ds2/dx2 = 1 - 0.2 = 0.8;  ds2/dx1 = 0.8 * 1/2 * dv1/dh1, dv1/dh1 = (1 - s1) - h1 * (1 - 0.2) = 1 - 0.64 = 0.36.
    """
    from snn_probe.models.blocks import lif

    node = lif()
    node.step_mode = "m"
    x = torch.tensor([[[0.8]], [[0.8]]], dtype=torch.float64, requires_grad=True)
    spikes = node(x)
    assert spikes.flatten().tolist() == [0.0, 1.0]
    (gradient,) = torch.autograd.grad(spikes[1].sum(), x)
    assert gradient.flatten().tolist() == pytest.approx([0.8 * 0.5 * 0.36, 0.8], rel=1e-12)


def test_unknown_and_unfit():
    with pytest.raises(ValueError, match=r"model is 'huge'; give one of 'tiny', 'vggsnn'\."):
        build("huge", input_shape=(1, 8, 8), num_classes=10, num_steps=4)
    with pytest.raises(ValueError, match="tiny pools twice and needs images of at least 4x4"):
        build("tiny", input_shape=(1, 3, 8), num_classes=10, num_steps=4)
    with pytest.raises(ValueError, match="vggsnn pools four times and needs images of at least 16x16"):
        build("vggsnn", input_shape=(1, 8, 8), num_classes=10, num_steps=4)
