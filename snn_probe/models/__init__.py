"""Networks by name, built from SpikingJelly layers and neurons, as temporal models."""

from collections.abc import Callable

import torch
from torch import nn

from snn_probe.models.tiny import tiny
from snn_probe.models.vgg import vggsnn
from snn_probe.temporal import from_spikingjelly

MODELS: dict[str, Callable[..., nn.Module]] = {"tiny": tiny, "vggsnn": vggsnn}


def build(name: str, *, input_shape: tuple[int, int, int], num_classes: int, num_steps: int | None, seed: int = 0):
    """The network ``name`` as a temporal model (see :mod:`snn_probe.temporal`), its weights drawn from ``seed``.

    ``input_shape``: (C, H, W) of an image or of one frame. ``num_steps``: T for static images, None for streams.
    The global random state is left alone. Raises ValueError for an unknown name or an unfit shape.
    """
    if name not in MODELS:
        raise ValueError(f"model is {name!r}; give one of {', '.join(map(repr, MODELS))}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = MODELS[name](input_shape=tuple(input_shape), num_classes=num_classes)
    return from_spikingjelly(net, num_steps)
