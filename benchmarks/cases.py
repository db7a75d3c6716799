"""The networks and examples that the contests are held on."""

import torch
from torch import nn

from snn_probe.checkpoint import build_model
from snn_probe.config import RunConfig
from snn_probe.data import load
from snn_probe.models import build
from snn_probe.models.tiny import tiny
from snn_probe.models.vgg import vggsnn
from snn_probe.temporal import from_spikingjelly
from snn_probe.training import train

T = 10


def vgg_case(count: int, size: int):
    """Half-width VGGSNN at 2x48x48 on event-like frames; ``count`` batches of ``size``."""
    torch.manual_seed(0)
    model = from_spikingjelly(vggsnn(input_shape=(2, 48, 48), num_classes=10, width=0.5))
    inputs = (torch.rand(count * size, T, 2, 48, 48) < 0.1).float() * 2
    labels = torch.randint(0, 10, (count * size,))
    return settled(model, inputs[:size]), list(zip(inputs.split(size), labels.split(size), strict=True))


def resnet_case(count: int, size: int):
    """Half-width ResNet-19 on 32x32 images shown T times."""
    torch.manual_seed(0)
    model = build("resnet19", input_shape=(3, 32, 32), num_classes=10, num_steps=T, width=0.5)
    inputs, labels = torch.rand(count * size, 3, 32, 32), torch.randint(0, 10, (count * size,))
    return settled(model, inputs[:size]), list(zip(inputs.split(size), labels.split(size), strict=True))


def tiny_case(count: int, size: int):
    """``tiny`` on event-digits."""
    torch.manual_seed(0)
    model = from_spikingjelly(tiny(input_shape=(2, 16, 16), num_classes=10))
    split = load("event-digits", "train", num_steps=T, num_examples=count * size)
    batches = list(zip(split.inputs.split(size), split.labels.split(size), strict=True))
    return settled(model, batches[0][0]), batches


def digits_case(count: int):
    """``tiny`` after two epochs on digits, T = 4, and one batch."""
    *_, checkpoint = train(RunConfig(method="sdt", dataset="digits", epochs=2))
    split = load("digits", "train", num_examples=count)
    return build_model(checkpoint).eval(), (split.inputs, split.labels)


def settled(model: nn.Module, inputs: torch.Tensor) -> nn.Module:
    """In eval mode, with batch statistics of these inputs."""
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(inputs)
    return model.eval()
