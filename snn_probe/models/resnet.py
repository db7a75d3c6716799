"""Residual networks: ``resnet19`` (TET, TRT), ``resnet19-kim``, ``sew-resnet34`` and ``spiking-resnet34``.

They take any image from 1x1: convolutions pad, stride 2 halves the sides rounded up, and the last pool is global.
"""

from collections import OrderedDict

from torch import Tensor, nn

from snn_probe.models.blocks import conv_bn, lif, scaled
from snn_probe.neurons.lif import Neuron


class ResidualBlock(nn.Module):
    """lif2(bn2(conv2(lif1(bn1(conv1(x))))) + shortcut(x)): a neuron after the addition, so its result is 0 or 1.

    The shortcut is a 1x1 conv-BN where the block changes the shape, and the identity elsewhere.
    """

    def __init__(self, inward: int, outward: int, stride: int, neuron: Neuron | None):
        super().__init__()
        self.conv1, self.bn1 = conv_bn(inward, outward, stride=stride)
        self.lif1 = lif(neuron)
        self.conv2, self.bn2 = conv_bn(outward, outward)
        self.lif2 = lif(neuron)
        same = stride == 1 and inward == outward
        self.shortcut = nn.Identity() if same else self.projection(inward, outward, stride, neuron)

    @staticmethod
    def projection(inward: int, outward: int, stride: int, neuron: Neuron | None) -> nn.Module:
        conv, bn = conv_bn(inward, outward, kernel=1, stride=stride)
        return nn.Sequential(OrderedDict(conv=conv, bn=bn))

    def branch(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv2(self.lif1(self.bn1(self.conv1(x)))))

    def forward(self, x: Tensor) -> Tensor:
        return self.lif2(self.branch(x) + self.shortcut(x))


class SEWBlock(ResidualBlock):
    """lif2(bn2(conv2(lif1(bn1(conv1(x)))))) + shortcut(x): spikes are added (spike-element-wise, ADD).

    Its result is a whole number, 2 or more where both sides fire: after k blocks of a stage it can reach k + 1. The
    shortcut is a 1x1 conv-BN-LIF where the block changes the shape, and the identity elsewhere.
    """

    @staticmethod
    def projection(inward: int, outward: int, stride: int, neuron: Neuron | None) -> nn.Module:
        conv, bn = conv_bn(inward, outward, kernel=1, stride=stride)
        return nn.Sequential(OrderedDict(conv=conv, bn=bn, lif=lif(neuron)))

    def forward(self, x: Tensor) -> Tensor:
        return self.lif2(self.branch(x)) + self.shortcut(x)


Stages = tuple[tuple[int, int, int], ...]
"""Channels, blocks and the first block's stride of each stage."""

RESNET19: Stages = ((128, 3, 1), (256, 3, 2), (512, 2, 2))
RESNET19_KIM: Stages = ((256, 3, 2), (512, 3, 2), (512, 2, 2))
RESNET34: Stages = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))


def resnet19(
    *, input_shape: tuple[int, int, int], num_classes: int, width: float = 1.0, neuron: Neuron | None = None
) -> nn.Module:
    """64C3, residual blocks 3 of 128, 3 of 256 (halving), 2 of 512 (halving), global average pool, 256FC-LIF, linear.

    The pool comes after the last neurons. ``width`` scales every channel count and the 256. At width 1, RGB and
    10 classes: 12.63 M parameters.
    """
    from spikingjelly.activation_based import layer

    hidden = scaled(256, width)
    layers = _stem(input_shape, scaled(64, width), neuron)
    channels = _add_stages(layers, ResidualBlock, RESNET19, scaled(64, width), width, neuron)
    layers["fc"], layers["lif_fc"] = layer.Linear(channels, hidden), lif(neuron)
    layers["classifier"] = layer.Linear(hidden, num_classes)
    return nn.Sequential(layers)


def resnet19_kim(
    *, input_shape: tuple[int, int, int], num_classes: int, width: float = 1.0, neuron: Neuron | None = None
) -> nn.Module:
    """128C3, residual blocks 3 of 256, 3 of 512, 2 of 512 (each stage halving), global average pool, linear.

    The ResNet-19 of Kim et al. (AAAI 2023); their neuron is :data:`snn_probe.neurons.lif.KIM`.
    """
    from spikingjelly.activation_based import layer

    layers = _stem(input_shape, scaled(128, width), neuron)
    channels = _add_stages(layers, ResidualBlock, RESNET19_KIM, scaled(128, width), width, neuron)
    layers["classifier"] = layer.Linear(channels, num_classes)
    return nn.Sequential(layers)


def sew_resnet34(
    *, input_shape: tuple[int, int, int], num_classes: int, width: float = 1.0, neuron: Neuron | None = None
) -> nn.Module:
    """ResNet-34 of spike-element-wise blocks (Fang et al., NeurIPS 2021), ADD: 21.34 M parameters at 100 classes.

    64C7 with stride 2, max pool, blocks 3 of 64, 4 of 128, 6 of 256, 3 of 512 (all but the first stage halving),
    global average pool, linear. See :class:`SEWBlock` for the whole numbers that its blocks emit.
    """
    return _resnet34(SEWBlock, input_shape, num_classes, width, neuron)


def spiking_resnet34(
    *, input_shape: tuple[int, int, int], num_classes: int, width: float = 1.0, neuron: Neuron | None = None
) -> nn.Module:
    """The same network with a neuron after each addition, which TET reports beside it; the same parameter count."""
    return _resnet34(ResidualBlock, input_shape, num_classes, width, neuron)


def _resnet34(block: type[ResidualBlock], input_shape, num_classes, width, neuron) -> nn.Module:
    from spikingjelly.activation_based import layer

    layers = _stem(input_shape, scaled(64, width), neuron, kernel=7, stride=2)
    layers["pool1"] = layer.MaxPool2d(kernel_size=3, stride=2, padding=1)
    channels = _add_stages(layers, block, RESNET34, scaled(64, width), width, neuron)
    layers["classifier"] = layer.Linear(channels, num_classes)
    return nn.Sequential(layers)


def _stem(input_shape, channels: int, neuron: Neuron | None, **shape: int) -> OrderedDict[str, nn.Module]:
    conv1, bn1 = conv_bn(input_shape[0], channels, **shape)
    return OrderedDict(conv1=conv1, bn1=bn1, lif1=lif(neuron))


def _add_stages(
    layers: OrderedDict[str, nn.Module],
    block: type[ResidualBlock],
    stages: Stages,
    channels: int,
    width: float,
    neuron: Neuron | None,
) -> int:
    """Add ``stage1``, ``stage2``, ..., the global average pool and the flattening; the number of features after it."""
    from spikingjelly.activation_based import layer

    for i, (wide, blocks, stride) in enumerate(stages, 1):
        outward = scaled(wide, width)
        stage: OrderedDict[str, nn.Module] = OrderedDict()
        for j in range(1, blocks + 1):
            stage[f"block{j}"] = block(channels, outward, stride if j == 1 else 1, neuron)
            channels = outward
        layers[f"stage{i}"] = nn.Sequential(stage)
    layers["pool"], layers["flatten"] = layer.AdaptiveAvgPool2d(1), layer.Flatten()
    return channels
