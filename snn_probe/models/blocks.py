"""The pieces the networks share, and networks that are a chain of convolutions."""

import math
from collections import OrderedDict

from torch import nn

from snn_probe.neurons.lif import SURROGATES, Neuron

TIMES = {2: "twice", 3: "three times", 4: "four times"}


def lif(neuron: Neuron | None = None) -> nn.Module:
    """A SpikingJelly layer of such neurons; None: those of TET and TRT, ``Neuron()``.

    SpikingJelly's leak is 1 - 1/tau, so its tau is 1 / (1 - leak); it asks for tau > 1, so a leak of 0 becomes one of
    2e-16, and a leak of 1 its ``IFNode``.
    """
    from spikingjelly.activation_based import neuron as nodes
    from spikingjelly.activation_based import surrogate

    neuron = neuron or Neuron()
    kinds = {"triangle": surrogate.PiecewiseQuadratic, "sigmoid": surrogate.Sigmoid, "atan": surrogate.ATan}
    sharpness = SURROGATES[neuron.surrogate] if neuron.sharpness is None else float(neuron.sharpness)
    options = {
        "v_threshold": float(neuron.threshold),
        "v_reset": 0.0 if neuron.reset == "hard" else None,
        "detach_reset": neuron.detach_reset,
        "surrogate_function": kinds[neuron.surrogate](alpha=sharpness),
    }
    if neuron.leak == 1:
        return nodes.IFNode(**options)
    tau = max(1.0 / (1.0 - neuron.leak), math.nextafter(1.0, 2.0))
    return nodes.LIFNode(tau=tau, decay_input=neuron.scale_input, **options)


def scaled(channels: int, width: float) -> int:
    """``channels`` times ``width``, rounded, at least 1. Raises ValueError for a width that is out of range."""
    number = isinstance(width, int | float) and not isinstance(width, bool)
    if not number or not 0 < width <= 1000:
        raise ValueError(f"width is {width!r}; give a factor for the channel counts, above 0 and at most 1000.")
    return max(1, round(channels * width))


def conv_bn(inward: int, outward: int, *, kernel: int = 3, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    """A convolution without bias, kaiming-normal (fan_out) as released, and batch norm over the merged T*N axis.

    It pads by half its kernel, so stride 1 keeps the size and stride 2 halves it, rounded up.
    """
    from spikingjelly.activation_based import layer

    conv = layer.Conv2d(inward, outward, kernel_size=kernel, stride=stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv, layer.BatchNorm2d(outward)


def chain(
    name: str,
    stages: tuple[tuple[int, ...], ...],
    *,
    input_shape: tuple[int, int, int],
    num_classes: int,
    width: float,
    neuron: Neuron | None,
    pools: bool = True,
) -> nn.Sequential:
    """Stages of 3x3 conv-BN-LIF, each of which halves the image at its end; then a linear read-out without a neuron.

    ``stages``: the channel counts of each stage's convolutions. ``pools``: a stage ends in a 2x2 average pool of the
    spikes; otherwise its last convolution has stride 2. Raises ValueError for images that cannot be pooled so often.
    """
    from spikingjelly.activation_based import layer

    channels, *space = input_shape
    smallest = 2 ** len(stages)
    if pools and min(space) < smallest:
        raise ValueError(
            f"input_shape is {input_shape}; {name} pools {TIMES[len(stages)]} and needs images of at least "
            f"{smallest}x{smallest}."
        )
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    number = 0
    for position, stage in enumerate(stages, 1):
        for i, wide in enumerate(stage, 1):
            number, outward = number + 1, scaled(wide, width)
            stride = 1 if pools or i < len(stage) else 2
            layers[f"conv{number}"], layers[f"bn{number}"] = conv_bn(channels, outward, stride=stride)
            layers[f"lif{number}"], channels = lif(neuron), outward
        if pools:
            layers[f"pool{position}"] = layer.AvgPool2d(2)
        space = [side // 2 if pools else -(-side // 2) for side in space]
    layers["flatten"] = layer.Flatten()
    layers["classifier"] = layer.Linear(channels * math.prod(space), num_classes)
    return nn.Sequential(layers)
