"""The training step of the released TRT program, written from its description: the peer of ``training_step.py``.

Inputs and activations (N, T, ...); layers run on the merged N*T axis; the neuron is a loop over timesteps on autograd's
tape; the image is repeated T times before the first convolution; the penalty is a loop over t and weights; Adam as
``torch.optim`` gives it.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GAMMA, THRESHOLD, TAU = 1.0, 1.0, 2.0


class ZIF(torch.autograd.Function):
    """A step forward, the triangle backward."""

    @staticmethod
    def forward(ctx, x, gamma):
        ctx.save_for_backward(x)
        ctx.gamma = gamma
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        slope = (1 / ctx.gamma) ** 2 * (ctx.gamma - x.abs()).clamp(min=0)
        return grad * slope, None


class LIF(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        potential, spikes = 0.0, []
        for t in range(x.shape[1]):
            potential = potential / TAU + x[:, t]
            spike = ZIF.apply(potential - THRESHOLD, GAMMA)
            potential = (1 - spike) * potential
            spikes.append(spike)
        return torch.stack(spikes, dim=1)


class Merged(nn.Sequential):
    """Layers on the merged N*T axis."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def conv_bn(inward: int, outward: int, stride: int = 1, kernel: int = 3) -> nn.Module:
    conv = nn.Conv2d(inward, outward, kernel, stride, kernel // 2, bias=False)
    return Merged(conv, nn.BatchNorm2d(outward))


class Block(nn.Module):
    def __init__(self, inward: int, outward: int, stride: int):
        super().__init__()
        self.first, self.lif1 = conv_bn(inward, outward, stride), LIF()
        self.second, self.lif2 = conv_bn(outward, outward), LIF()
        same = inward == outward and stride == 1
        self.shortcut = nn.Identity() if same else conv_bn(inward, outward, stride, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.lif2(self.second(self.lif1(self.first(x))) + self.shortcut(x))


class ResNet19(nn.Module):
    """Logits (N, T, classes) of images (N, 3, H, W); parameters in the order of ``snn_probe``'s ``resnet19``."""

    def __init__(self, num_steps: int, num_classes: int = 10):
        super().__init__()
        self.num_steps = num_steps
        self.stem, self.lif1 = conv_bn(3, 64), LIF()
        channels, blocks = 64, []
        for wide, stride in ((128, 1), (128, 1), (128, 1), (256, 2), (256, 1), (256, 1), (512, 2), (512, 1)):
            blocks.append(Block(channels, wide, stride))
            channels = wide
        self.blocks = nn.Sequential(*blocks)
        self.pool = Merged(nn.AdaptiveAvgPool2d(1))
        self.hidden, self.lif2 = Merged(nn.Linear(512, 256)), LIF()
        self.classifier = Merged(nn.Linear(256, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        x = images.unsqueeze(1).repeat(1, self.num_steps, 1, 1, 1)
        x = self.pool(self.blocks(self.lif1(self.stem(x)))).flatten(2)
        return self.classifier(self.lif2(self.hidden(x)))


def penalty_of(model: nn.Module, t: int, strength: float, decay: float, epsilon: float) -> Tensor:
    """r(t), every tensor on the tape."""
    total = 0.0
    for name, w in model.named_parameters():
        if "bias" not in name:
            total = total + (strength * w**2 / (1 + (math.exp(decay * t) - 1) * (w.abs() + epsilon))).sum()
    return total


def loss_of(logits: Tensor, labels: Tensor, mse_weight: float = 0.05) -> Tensor:
    onehot = F.one_hot(labels, logits.shape[-1]).to(logits.dtype)
    total = 0.0
    for t in range(logits.shape[1]):
        cross_entropy, squared = F.cross_entropy(logits[:, t], labels), F.mse_loss(logits[:, t], onehot)
        total = total + (1 - mse_weight) * cross_entropy + mse_weight * squared
    return total / logits.shape[1]
