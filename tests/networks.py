"""Small networks for the tests: temporal models that keep or break a promise."""

import torch
from spikingjelly.activation_based import layer, neuron, surrogate
from torch import nn

from snn_probe.temporal import from_spikingjelly


def lif(**options):
    return neuron.LIFNode(
        **{"tau": 2.0, "decay_input": False, "surrogate_function": surrogate.ATan(), **options},
    )


def convolutional(num_steps=None, *, channels=2, classes=5, seed=0, double=True):
    """conv(bias)-BN-LIF-pool-grouped strided conv-BN-LIF-linear(bias), batch norms with moved statistics."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        layer.Conv2d(channels, 4, 3, padding=1),
        layer.BatchNorm2d(4),
        lif(),
        layer.AvgPool2d(2),
        layer.Conv2d(4, 6, 3, stride=2, padding=1, dilation=1, groups=2),
        layer.BatchNorm2d(6),
        lif(decay_input=True, v_reset=None, v_threshold=0.4),
        layer.Flatten(),
        layer.Linear(6 * 2 * 2, 8),
        layer.BatchNorm1d(8),
        neuron.IFNode(surrogate_function=surrogate.Sigmoid(), detach_reset=True),
        layer.Linear(8, classes),
    )
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0.1, 0.2)
            module.running_var.uniform_(0.2, 0.8)
            nn.init.uniform_(module.weight, 0.5, 2.0)
            nn.init.normal_(module.bias, 0.3, 0.3)
    model = from_spikingjelly(net, num_steps)
    return (model.double() if double else model).train()


def examples(n, num_steps=None, *, channels=2, size=8, steps=5, classes=5, seed=1, dtype=torch.float64):
    """Images (n, C, H, W) if ``num_steps`` is given, else streams (n, steps, C, H, W); and labels."""
    generator = torch.Generator().manual_seed(seed)
    lead = (n,) if num_steps else (n, steps)
    x = torch.rand(*lead, channels, size, size, generator=generator, dtype=dtype) * 2
    return x, torch.randint(0, classes, (n,), generator=generator)


class Spike(torch.autograd.Function):
    """Heaviside forward, a triangle backward: a hand-written surrogate."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return (x >= 0).to(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * (1 - x.abs()).clamp_min(0)


class Recurrent(nn.Module):
    """A hand-written recurrent spiking network on streams (N, T, F) that returns (T, N, C) at once.

    ``leak`` is a learnable parameter of the module itself, ``recurrent`` is used T times, ``twice`` shares a weight.
    """

    def __init__(self, features=6, hidden=7, classes=4):
        super().__init__()
        self.inward = nn.Linear(features, hidden)
        self.recurrent = nn.Linear(hidden, hidden, bias=False)
        self.leak = nn.Parameter(torch.tensor(0.6))
        self.outward = nn.Linear(hidden, classes)

    def forward(self, inputs):
        v = inputs.new_zeros(len(inputs), self.leak.numel() * self.recurrent.in_features)
        s = torch.zeros_like(v)
        logits = []
        for t in range(inputs.shape[1]):
            v = self.leak * v * (1 - s) + self.inward(inputs[:, t]) + self.recurrent(s)
            s = Spike.apply(v - 0.3)
            logits.append(self.outward(s))
        return torch.stack(logits)
