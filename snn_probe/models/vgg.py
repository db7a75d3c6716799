"""``vggsnn``: the network of TET and TRT for event data (2x48x48 frames)."""

from torch import nn

from snn_probe.models.blocks import conv_bn, lif

STAGES = ((64, 128), (256, 256), (512, 512), (512, 512))


def vggsnn(*, input_shape: tuple[int, int, int], num_classes: int, width: float = 1.0) -> nn.Module:
    """64C3-128C3-AP2-256C3-256C3-AP2-512C3-512C3-AP2-512C3-512C3-AP2-linear, as a SpikingJelly ``nn.Sequential``.

    Each C3 is conv-BN-LIF; pools come after the spikes. ``width`` scales every channel count. At width 1, 2x48x48 and
    10 classes: 9.27 M parameters.
    """
    from spikingjelly.activation_based import layer

    channels, height, space = input_shape
    if height < 16 or space < 16:
        raise ValueError(f"input_shape is {input_shape}; vggsnn pools four times and needs images of at least 16x16.")
    layers: list[nn.Module] = []
    for stage in STAGES:
        for wide in stage:
            outward = max(1, round(wide * width))
            layers += [*conv_bn(channels, outward), lif()]
            channels = outward
        layers.append(layer.AvgPool2d(2))
    layers += [layer.Flatten(), layer.Linear(channels * (height // 16) * (space // 16), num_classes)]
    return nn.Sequential(*layers)
