"""Networks by name, built from SpikingJelly layers and neurons, as temporal models."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from snn_probe.models.cnn5 import cnn5
from snn_probe.models.resnet import resnet19, resnet19_kim, sew_resnet34, spiking_resnet34
from snn_probe.models.tiny import tiny
from snn_probe.models.vgg import vggsnn, vggsnn_woap
from snn_probe.neurons.lif import Neuron
from snn_probe.temporal import from_spikingjelly

MODELS: dict[str, Callable[..., nn.Module]] = {
    "tiny": tiny,
    "cnn5": cnn5,
    "vggsnn": vggsnn,
    "vggsnn-woap": vggsnn_woap,
    "resnet19": resnet19,
    "resnet19-kim": resnet19_kim,
    "sew-resnet34": sew_resnet34,
    "spiking-resnet34": spiking_resnet34,
}
"""Each takes ``input_shape``, ``num_classes``, ``width`` and ``neuron`` by keyword, and gives an ``nn.Sequential``."""


def build(
    name: str,
    *,
    input_shape: tuple[int, int, int],
    num_classes: int,
    num_steps: int | None,
    seed: int = 0,
    width: float = 1.0,
    neuron: Neuron | None = None,
) -> nn.Module:
    """The network ``name`` as a temporal model (see :mod:`snn_probe.temporal`), its weights drawn from ``seed``.

    ``input_shape``: (C, H, W) of an image or of one frame. ``num_steps``: T for static images, None for streams.
    ``width`` scales every channel count; ``neuron``: None is that of TET and TRT. Weights are drawn on the CPU, so they
    depend on nothing else, and no random state is touched; on the meta device, where no values exist, none are drawn.
    Raises ValueError for an unknown name, an unfit shape, and a number of classes, width or neuron that is none.
    """
    if name not in MODELS:
        raise ValueError(f"model is {name!r}; give one of {', '.join(map(repr, MODELS))}.")
    shape = tuple(input_shape) if isinstance(input_shape, tuple | list) else ()
    if len(shape) != 3 or not all(_is_whole(side, low=1) for side in shape):
        raise ValueError(
            f"input_shape is {input_shape!r}; give (channels, height, width), three whole numbers of at least 1."
        )
    if not _is_whole(num_classes, low=2):
        raise ValueError(f"num_classes is {num_classes!r}; give a whole number of at least 2.")
    if neuron is not None and not isinstance(neuron, Neuron):
        raise ValueError(f"neuron is {neuron!r}; give a snn_probe.neurons.lif.Neuron, or None for that of TET and TRT.")
    device = "meta" if torch.get_default_device().type == "meta" else "cpu"
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.default_generator.manual_seed(seed)
        net = MODELS[name](input_shape=shape, num_classes=num_classes, width=width, neuron=neuron)
    return from_spikingjelly(net, num_steps)


def _is_whole(value: Any, *, low: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low
