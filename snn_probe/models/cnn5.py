"""``cnn5``: five layers with weights, for small images such as Fashion-MNIST or SVHN."""

from torch import nn

from snn_probe.models.blocks import chain
from snn_probe.neurons.lif import Neuron

STAGES = ((64, 128), (256,), (256,))


def cnn5(
    *, input_shape: tuple[int, int, int], num_classes: int, width: float = 1.0, neuron: Neuron | None = None
) -> nn.Module:
    """64C3-128C3-AP2-256C3-AP2-256C3-AP2-linear, as a SpikingJelly ``nn.Sequential``; each C3 is conv-BN-LIF.

    This structure is ours: no released program of the papers has a network of this size to follow.
    """
    return chain("cnn5", STAGES, input_shape=input_shape, num_classes=num_classes, width=width, neuron=neuron)
