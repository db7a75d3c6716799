"""The neuron as a value: its checks, and SpikingJelly's layer against the recursion written out by hand."""

from dataclasses import FrozenInstanceError, replace

import pytest
import torch
from spikingjelly.activation_based import functional, neuron

from snn_probe.models.blocks import lif
from snn_probe.neurons.lif import KIM, Neuron

NEURONS = [
    Neuron(),
    KIM,
    Neuron(leak=0.0),
    Neuron(leak=0.9),
    Neuron(leak=1.0),
    Neuron(leak=1, reset="soft", detach_reset=True, surrogate="sigmoid"),
    Neuron(leak=0.25, scale_input=True),
    Neuron(leak=0.0, scale_input=True),
    Neuron(threshold=0.4),
    Neuron(threshold=2, leak=0.8, reset="soft"),
    Neuron(reset="soft", scale_input=True, leak=0.7),
    Neuron(detach_reset=True),
    Neuron(reset="soft", detach_reset=True, threshold=0.6),
    Neuron(surrogate="sigmoid"),
    Neuron(surrogate="atan"),
    Neuron(sharpness=0.5),
    Neuron(surrogate="sigmoid", sharpness=2),
    Neuron(surrogate="atan", sharpness=3.5, threshold=0.8),
]


def slope(kind, sharpness, d):
    """The surrogate derivative at d = h - threshold, as the docstring has it."""
    if kind == "triangle":
        a = sharpness or 1.0
        return a * (1 - a * d.abs()).clamp_min(0)
    if kind == "sigmoid":
        a = sharpness or 4.0
        q = 1 / (1 + torch.exp(-a * d))
        return a * q * (1 - q)
    a = sharpness or 2.0
    return (a / 2) / (1 + (torch.pi * a * d / 2) ** 2)


def by_hand(cell, x, d_spikes):
    """Spikes, and dL/dx for dL/ds = ``d_spikes``, by the forward and the reversed recursion; no autograd."""
    v, hs, spikes = torch.zeros_like(x[0]), [], []
    scale = 1 - cell.leak if cell.scale_input else 1.0
    for current in x:
        h = cell.leak * v + scale * current
        s = (h >= cell.threshold).to(h)
        v = h - s * cell.threshold if cell.reset == "soft" else h * (1 - s)
        hs, spikes = [*hs, h], [*spikes, s]
    d_v, gradients = torch.zeros_like(v), []
    for h, s, d_s in reversed(list(zip(hs, spikes, d_spikes, strict=True))):
        ds_dh = slope(cell.surrogate, cell.sharpness, h - cell.threshold)
        by_reset = 0.0 if cell.detach_reset else ds_dh
        dv_dh = 1 - cell.threshold * by_reset if cell.reset == "soft" else (1 - s) - h * by_reset
        d_h = d_s * ds_dh + d_v * dv_dh
        gradients.append(d_h * scale)
        d_v = d_h * cell.leak
    return torch.stack(spikes), torch.stack(gradients[::-1])


@pytest.mark.parametrize("mode", ["m", "s"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("cell", NEURONS, ids=repr)
def test_spikes_and_gradients_are_those_of_the_recursion(cell, dtype, tolerance, mode):
    generator = torch.Generator().manual_seed(0)
    x = 1.5 * torch.randn(6, 4, 25, generator=generator, dtype=torch.float64) + 0.6
    d_spikes = torch.randn(6, 4, 25, generator=generator, dtype=torch.float64)
    spikes, expected = by_hand(cell, x, d_spikes)
    node, leaf = lif(cell), x.to(dtype).requires_grad_()
    functional.set_step_mode(node, mode)
    found = node(leaf) if mode == "m" else torch.stack([node(current) for current in leaf])
    (gradient,) = torch.autograd.grad(found, leaf, d_spikes.to(dtype))
    assert 0.05 < spikes.mean() < 0.95 and 0 < (gradient != 0).double().mean()
    assert torch.equal(found.double(), spikes)
    assert torch.allclose(gradient.double(), expected, rtol=tolerance, atol=tolerance)


def test_every_option_changes_the_gradient():
    """So that the test above cannot pass with an option ignored."""
    generator = torch.Generator().manual_seed(1)
    x, d = torch.randn(2, 6, 50, generator=generator, dtype=torch.float64)
    base = by_hand(Neuron(), x, d)[1]
    others = {"leak": 0.4, "scale_input": True, "threshold": 0.9, "reset": "soft", "detach_reset": True}
    for name, value in {**others, "surrogate": "atan", "sharpness": 1.1}.items():
        assert not torch.allclose(base, by_hand(replace(Neuron(), **{name: value}), x, d)[1], rtol=1e-3)


def test_defaults_are_the_papers_neuron():
    node = lif()
    assert type(node) is neuron.LIFNode and (node.tau, node.decay_input) == (2.0, False)
    assert (node.v_threshold, node.v_reset, node.detach_reset) == (1.0, 0.0, False)
    assert type(lif(Neuron(leak=1))) is neuron.IFNode
    kim = lif(KIM)
    assert (kim.tau, kim.decay_input, kim.detach_reset) == (2.0, True, True)
    with pytest.raises(FrozenInstanceError):
        Neuron().leak = 0.1


BAD = [
    ({"leak": -0.1}, r"^leak is -0\.1; give a number from 0 \(no memory\) to 1 \(integrate-and-fire\)\.$"),
    ({"leak": 1.01}, r"^leak is 1\.01; give a number from 0"),
    ({"leak": True}, r"^leak is True; give a number from 0"),
    ({"leak": "0.5"}, r"^leak is '0\.5'; give a number from 0"),
    ({"leak": float("nan")}, r"^leak is nan; give a number from 0"),
    ({"threshold": 0}, r"^threshold is 0; give a finite number above 0\.$"),
    ({"threshold": float("inf")}, r"^threshold is inf; give a finite number above 0\.$"),
    ({"threshold": 10**400}, r"^threshold is 10+; give a finite number above 0\.$"),
    ({"threshold": None}, r"^threshold is None; give a finite number above 0\.$"),
    ({"scale_input": 1}, r"^scale_input is 1; give true or false\.$"),
    ({"detach_reset": "no"}, r"^detach_reset is 'no'; give true or false\.$"),
    ({"reset": "none"}, r"^reset is 'none'; give one of 'hard', 'soft'\.$"),
    ({"reset": ["hard"]}, r"^reset is \['hard'\]; give one of 'hard', 'soft'\.$"),
    ({"surrogate": "rect"}, r"^surrogate is 'rect'; give one of 'triangle', 'sigmoid', 'atan'\.$"),
    ({"surrogate": 3}, r"^surrogate is 3; give one of 'triangle', 'sigmoid', 'atan'\.$"),
    ({"sharpness": 0.0}, r"^sharpness is 0\.0; give a finite number above 0, or None for the surrogate's usual one\.$"),
    ({"sharpness": "4"}, r"^sharpness is '4'; give a finite number above 0, or None"),
    (
        {"leak": 1.0, "scale_input": True},
        r"^leak is 1 and scale_input is true, which multiplies every current by 0;",
    ),
]


@pytest.mark.parametrize(("options", "sentence"), BAD)
def test_bad_options_get_one_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        Neuron(**options)
