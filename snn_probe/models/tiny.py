"""``tiny``: two convolutions, for 8x8 digits and 16x16 event frames; trains in seconds on a CPU."""

from torch import nn

from snn_probe.models.blocks import chain
from snn_probe.neurons.lif import Neuron

STAGES = ((32,), (64,))


def tiny(
    *, input_shape: tuple[int, int, int], num_classes: int, width: float = 1.0, neuron: Neuron | None = None
) -> nn.Module:
    """32C3-AP2-64C3-AP2-linear, as a SpikingJelly ``nn.Sequential``; each C3 is conv-BN-LIF, pools take the spikes."""
    return chain("tiny", STAGES, input_shape=input_shape, num_classes=num_classes, width=width, neuron=neuron)
