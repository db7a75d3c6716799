"""``vggsnn``: the network of TET and TRT for event data (2x48x48 frames), and its variant without pools."""

from torch import nn

from snn_probe.models.blocks import chain
from snn_probe.neurons.lif import Neuron

STAGES = ((64, 128), (256, 256), (512, 512), (512, 512))


def vggsnn(
    *, input_shape: tuple[int, int, int], num_classes: int, width: float = 1.0, neuron: Neuron | None = None
) -> nn.Module:
    """64C3-128C3-AP2-256C3-256C3-AP2-512C3-512C3-AP2-512C3-512C3-AP2-linear, as a SpikingJelly ``nn.Sequential``.

    Each C3 is conv-BN-LIF; pools come after the spikes. ``width`` scales every channel count. At width 1, 2x48x48 and
    10 classes: 9.27 M parameters.
    """
    return chain("vggsnn", STAGES, input_shape=input_shape, num_classes=num_classes, width=width, neuron=neuron)


def vggsnn_woap(
    *, input_shape: tuple[int, int, int], num_classes: int, width: float = 1.0, neuron: Neuron | None = None
) -> nn.Module:
    """``vggsnn`` with stride 2 in every second convolution instead of average pools.

    The parameter count is the same where the image's sides are multiples of 16; any image from 1x1 is taken.
    """
    return chain(
        "vggsnn-woap",
        STAGES,
        input_shape=input_shape,
        num_classes=num_classes,
        width=width,
        neuron=neuron,
        pools=False,
    )
