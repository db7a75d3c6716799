"""``tiny``: two convolutions, for 8x8 digits and 16x16 event frames; trains in seconds on a CPU."""

from collections import OrderedDict

from torch import nn

from snn_probe.models.blocks import conv_bn, lif

WIDTHS = (32, 64)


def tiny(*, input_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """C - 32C3 - BN - LIF - AP2 - 64C3 - BN - LIF - AP2 - linear, as a SpikingJelly ``nn.Sequential``.

    Average pools come after the spikes; the last layer is a linear read-out without a neuron.
    """
    from spikingjelly.activation_based import layer

    channels, height, width = input_shape
    if height < 4 or width < 4:
        raise ValueError(f"input_shape is {input_shape}; tiny pools twice and needs images of at least 4x4.")
    conv1, bn1 = conv_bn(channels, WIDTHS[0])
    conv2, bn2 = conv_bn(*WIDTHS)
    return nn.Sequential(
        OrderedDict(
            conv1=conv1,
            bn1=bn1,
            lif1=lif(),
            pool1=layer.AvgPool2d(2),
            conv2=conv2,
            bn2=bn2,
            lif2=lif(),
            pool2=layer.AvgPool2d(2),
            flatten=layer.Flatten(),
            classifier=layer.Linear(WIDTHS[1] * (height // 4) * (width // 4), num_classes),
        )
    )
