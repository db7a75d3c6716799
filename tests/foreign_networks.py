"""Small networks as other people write them: SpikingJelly's model zoo, snnTorch, by hand. Each with its inputs.

``NETWORKS[name]()`` gives a temporal model and inputs of three examples, in float32 and training mode.
"""

import networks
import pytest
import torch
from spikingjelly.activation_based import layer, neuron, surrogate
from torch import nn

from snn_probe.temporal import from_snntorch, from_spikingjelly

CLASSES = 4


def images(channels=3, size=8, seed=1):
    return 2 * torch.rand(3, channels, size, size, generator=torch.Generator().manual_seed(seed))


def streams(*shape, seed=1):
    return 2 * torch.rand(3, 2, *shape, generator=torch.Generator().manual_seed(seed))


def spiking_vgg():
    """SpikingJelly's VGG with a narrow body and a head for small images, in place of 102 million weights."""
    from spikingjelly.activation_based.model import spiking_vgg

    options = {"spiking_neuron": neuron.LIFNode, "surrogate_function": surrogate.ATan(), "v_threshold": 0.3}
    with torch.device("meta"):
        net = spiking_vgg.SpikingVGG(["M"], spiking_neuron=neuron.LIFNode, num_classes=CLASSES, init_weights=False)
    net.features = spiking_vgg.SpikingVGG.make_layers(
        [4, "M", 8, "M"], batch_norm=True, neuron=options.pop("spiking_neuron"), **options
    )
    net.avgpool = layer.AdaptiveAvgPool2d((1, 1))
    net.classifier = nn.Sequential(
        layer.Linear(8, 8), neuron.LIFNode(**options), layer.Dropout(), layer.Linear(8, CLASSES)
    )
    return from_spikingjelly(net, num_steps=2), images()


def sew_resnet():
    """SpikingJelly's SEW ResNet, one block a stage, without its two widest stages."""
    from spikingjelly.activation_based.model import sew_resnet

    net = sew_resnet.SEWResNet(
        sew_resnet.BasicBlock, [1, 1, 1, 1], CLASSES, cnf="ADD", spiking_neuron=neuron.IFNode, v_threshold=0.3
    )
    net.layer3, net.layer4, net.fc = nn.Identity(), nn.Identity(), layer.Linear(128, CLASSES)
    return from_spikingjelly(net, num_steps=2), images()


def spikformer():
    from spikingjelly.activation_based.model.spikformer import Spikformer

    net = Spikformer(
        2,
        3,
        8,
        8,
        patch_size=4,
        num_classes=CLASSES,
        embed_dims=16,
        num_heads=2,
        depths=1,
        mlp_ratio=2.0,
        v_threshold=0.2,
    )
    for module in net.modules():  # at its own initial weights there are no spikes
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.bias, 0.3, 0.4)
    return from_spikingjelly(net, num_steps=2), images()


def learnable_leak():
    """Multi-step on streams, a learnable time constant and a hand-made node."""

    class Node(neuron.SimpleBaseNode):
        def __init__(self):
            super().__init__(v_threshold=0.5, v_reset=0.0, surrogate_function=surrogate.Sigmoid(), detach_reset=False)
            self.leak = nn.Parameter(torch.tensor(0.7))

        def neuronal_charge(self, x):
            self.v = self.leak * self.v + x

    net = nn.Sequential(
        layer.Linear(6, 8),
        neuron.ParametricLIFNode(v_threshold=0.5),
        layer.Linear(8, 8),
        Node(),
        layer.Linear(8, CLASSES),
    )
    return from_spikingjelly(net), streams(6)


class OwnNode(neuron.BaseNode):
    """A node of a user's own, derived from SpikingJelly's base: a leak and a soft reset written out."""

    def single_step_functional_forward(self, inputs, states, **kwargs):
        charged = 0.6 * states[0] + inputs[0]
        spikes = self.surrogate_function(charged - self.v_threshold)
        return (spikes,), (charged - spikes * self.v_threshold, *states[1:])


def own_surrogate():
    """Surrogates of a user's own: a function of autograd in SpikingJelly's node, and in a node of their own."""
    net = nn.Sequential(
        layer.Linear(6, 8), neuron.LIFNode(surrogate_function=networks.Spike.apply, v_threshold=0.3),
        layer.Linear(8, 8), OwnNode(surrogate_function=networks.Spike.apply, v_threshold=0.3), layer.Linear(8, CLASSES),
    )  # fmt: skip
    return from_spikingjelly(net), streams(6)


class Transposing(nn.Module):
    """Takes (N, T, F) and moves time first itself, as networks for event cameras often do."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(layer.Linear(6, 8), networks.lif(v_threshold=0.4), layer.Linear(8, CLASSES))

    def forward(self, x):
        return self.body(x.transpose(0, 1))


def examples_first():
    return from_spikingjelly(Transposing(), takes="examples first"), streams(6)


def single_step():
    """Layers of torch itself on one timestep at a time."""
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), networks.lif(v_threshold=0.3), nn.Flatten(), nn.Linear(4, CLASSES)
    )
    return from_spikingjelly(net, takes="timestep"), streams(2, 3, 3)


def snntorch_convolutional():
    snn = pytest.importorskip("snntorch")
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.MaxPool2d(2),
        snn.Leaky(beta=0.8, threshold=0.3, init_hidden=True),
        nn.Flatten(),
        nn.Linear(36, 8),
        snn.Synaptic(alpha=0.7, beta=0.8, threshold=0.3, init_hidden=True, learn_beta=True),
        nn.Linear(8, CLASSES),
        snn.Leaky(beta=0.9, init_hidden=True, output=True),
    )
    return from_snntorch(net, num_steps=2), images(1)


class Looping(nn.Module):
    """snnTorch with states as variables and a loop of its own over streams (T, N, F)."""

    def __init__(self, snn):
        super().__init__()
        self.inward = nn.Linear(6, 8)
        self.recurrent = snn.RLeaky(beta=0.8, threshold=0.3, linear_features=8, learn_threshold=True)
        self.outward = nn.Linear(8, CLASSES)
        self.readout = snn.Leaky(beta=0.9)

    def forward(self, x):
        spikes, hidden = self.recurrent.reset_mem()
        membrane = self.readout.reset_mem()
        kept = []
        for step in x:
            spikes, hidden = self.recurrent(self.inward(step), spikes, hidden)
            out, membrane = self.readout(self.outward(spikes), membrane)
            kept.append((out, membrane))
        return tuple(torch.stack(part) for part in zip(*kept, strict=True))


def snntorch_recurrent():
    return from_snntorch(Looping(pytest.importorskip("snntorch")), takes="time first"), streams(6)


def snntorch_recurrent_stepwise():
    snn = pytest.importorskip("snntorch")
    net = nn.Sequential(
        nn.Linear(6, 8), snn.RLeaky(beta=0.8, threshold=0.3, linear_features=8, init_hidden=True), nn.Linear(8, CLASSES)
    )
    return from_snntorch(net), streams(6)


class Plain(nn.Module):
    """No library at all: convolution, norm and a membrane potential on (N, T, C, H, W)."""

    def __init__(self):
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(2, 4, 3, groups=2), nn.GroupNorm(2, 4)
        self.threshold = nn.Parameter(torch.tensor(0.4))
        self.spikes = HandMade()
        self.outward = nn.Linear(4 * 9, CLASSES)

    def forward(self, x):
        v, logits = 0.0, []
        for step in x.unbind(1):
            v = 0.8 * v + self.norm(self.convolution(step))
            s = self.spikes(v - self.threshold)
            v = v - s * self.threshold
            logits.append(self.outward(s.flatten(1)))
        return torch.stack(logits)


class HandMade(nn.Module):
    spike_grad = staticmethod(networks.Spike.apply)

    def forward(self, x):
        return self.spike_grad(x)


NETWORKS = {
    "spiking_vgg": spiking_vgg,
    "sew_resnet": sew_resnet,
    "spikformer": spikformer,
    "learnable leak": learnable_leak,
    "own surrogate": own_surrogate,
    "examples first": examples_first,
    "single-step": single_step,
    "snntorch convolutional": snntorch_convolutional,
    "snntorch recurrent": snntorch_recurrent,
    "snntorch recurrent stepwise": snntorch_recurrent_stepwise,
    "plain": lambda: (Plain(), streams(2, 5, 5)),
    "recurrent": lambda: (networks.Recurrent(), streams(6)),
}


def made(name):
    """The network from a fixed seed with inputs and labels; the random state is as before."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, inputs = NETWORKS[name]()
    return model.train(), inputs, torch.tensor([0, 3, 1])
