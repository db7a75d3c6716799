"""Networks by name: published sizes, weights from the seed, the temporal contract, and forward passes by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from snn_probe.models import MODELS, build
from snn_probe.models.resnet import ResidualBlock, SEWBlock
from snn_probe.neurons.lif import Neuron
from snn_probe.temporal import check_temporal, spiking_layers, unrolled

SHAPES = {  # the smallest that give every stage something to see, and a width
    "tiny": ((2, 16, 16), 0.25),
    "cnn5": ((1, 14, 14), 0.05),
    "vggsnn": ((2, 32, 32), 0.03),
    "vggsnn-woap": ((2, 32, 32), 0.03),
    "resnet19": ((3, 8, 8), 0.05),
    "resnet19-kim": ((3, 12, 9), 0.03),
    "sew-resnet34": ((3, 32, 32), 0.08),
    "spiking-resnet34": ((3, 33, 47), 0.08),
}
CONVOLUTIONS = {"tiny": 2, "cnn5": 4, "vggsnn": 8, "vggsnn-woap": 8, "resnet19": 17 + 3, "resnet19-kim": 17 + 3}
CONVOLUTIONS |= {"sew-resnet34": 33 + 3, "spiking-resnet34": 33 + 3}  # the 3: shortcuts
CLASSES = 7


def small(name, num_steps=3, *, seed=0, **options):
    shape, width = SHAPES[name]
    return build(
        name, input_shape=shape, num_classes=CLASSES, num_steps=num_steps, seed=seed, **{"width": width, **options}
    )


def inputs(name, num_steps=3, n=4, steps=3):
    lead = (n,) if num_steps else (n, steps)
    return 2 * torch.rand(*lead, *SHAPES[name][0], generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def settled(name, num_steps=3, **options):
    """In eval mode, float64, with the running statistics of one batch, so that every layer is active."""
    model = small(name, num_steps, **options).double().train()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        for norm in norms:
            norm.momentum = 1.0
            norm.bias.fill_(0.5)
        model(inputs(name, num_steps, n=8))
    for norm in norms:
        norm.momentum = 0.1
    return model.eval()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("num_steps", [None, 3])
def test_every_network_keeps_the_temporal_contract(name, num_steps):
    model, x = settled(name, num_steps), inputs(name, num_steps)
    assert check_temporal(model, x, num_classes=CLASSES, num_steps=3) == 3
    logits = model(x)
    assert torch.allclose(torch.stack(unrolled(model, x)), logits, rtol=1e-9, atol=1e-12)
    assert torch.allclose(torch.cat([model(x[:1]), model(x[1:])], 1), logits, rtol=1e-9, atol=1e-12)
    assert not torch.allclose(logits[0], logits[2], rtol=1e-3), "nothing happens in time"
    assert not torch.allclose(logits[:, 0], logits[:, 1], rtol=1e-3), "nothing depends on the image"


@pytest.mark.parametrize("name", MODELS)
def test_a_gradient_reaches_every_parameter_in_training(name):
    """With a low threshold, since resnet19's hidden linear layer has no batch norm and rarely fires when untrained."""
    model, x = small(name, neuron=Neuron(threshold=0.25)).double().train(), inputs(name)
    F.cross_entropy(model(x).mean(0), torch.arange(4)).backward()
    silent = [
        n for n, p in model.named_parameters() if p.grad is None or not (p.grad.isfinite().all() and p.grad.any())
    ]
    assert silent == []


@pytest.mark.parametrize("name", MODELS)
def test_the_neuron_reaches_every_spiking_layer(name):
    cell = Neuron(leak=0.75, threshold=0.7, reset="soft", detach_reset=True, surrogate="atan", sharpness=3.0)
    layers = spiking_layers(small(name, neuron=cell))
    for node in layers.values():
        assert (node.tau, node.v_threshold, node.v_reset, node.detach_reset) == (4.0, 0.7, None, True)
        assert type(node.surrogate_function).__name__ == "ATan" and node.surrogate_function.alpha == 3.0
    plain = spiking_layers(small(name))
    assert list(plain) == list(layers) and all(node.tau == 2.0 and node.v_reset == 0.0 for node in plain.values())


@pytest.mark.parametrize("name", MODELS)
def test_weights_come_from_the_seed_alone(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("the GPU's random state was set"))
    torch.default_generator.manual_seed(5)
    before = torch.get_rng_state()
    a = small(name, 2, seed=3).state_dict()
    assert torch.equal(before, torch.get_rng_state())
    torch.default_generator.manual_seed(6)
    b, c = small(name, None, seed=3).state_dict(), small(name, 2, seed=4).state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)
    drawn = [k for k in a if k.endswith("weight") and a[k].ndim > 1]
    assert len(drawn) >= 3 and not any(torch.equal(a[k], c[k]) for k in drawn)
    with torch.device("meta"):  # shapes alone
        empty = small(name, 2, seed=3).state_dict()
    assert {k: v.shape for k, v in empty.items()} == {k: v.shape for k, v in a.items()}
    assert all(v.is_meta for v in empty.values())


@pytest.mark.parametrize("name", MODELS)
def test_convolutions_are_kaiming_normal_over_the_fan_out(name):
    """std^2 = 2 / (outputs * kernel^2): sample mean and std within 4.5 standard errors; no bias."""
    model = small(name, width=4 * SHAPES[name][1])
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    for conv in convolutions:
        weight, std = conv.weight.detach(), math.sqrt(2 / (conv.out_channels * math.prod(conv.kernel_size)))
        assert conv.bias is None
        assert abs(float(weight.mean())) < 4.5 * std / math.sqrt(weight.numel())
        assert abs(float(weight.std()) / std - 1) < 4.5 / math.sqrt(2 * weight.numel())
    assert len(convolutions) == CONVOLUTIONS[name]


def count(name, shape, classes, **options):
    with torch.device("meta"):
        model = build(name, input_shape=shape, num_classes=classes, num_steps=4, **options)
    return sum(p.numel() for p in model.parameters())


def test_parameter_counts_as_published():
    """tiny by hand: 1*32*9 + 2*32 + 32*64*9 + 2*64 + 64*2*2*10 + 10."""
    assert count("tiny", (1, 8, 8), 10) == 288 + 64 + 18432 + 128 + 2560 + 10
    assert round(count("vggsnn", (2, 48, 48), 10) / 1e6, 2) == 9.27
    assert count("vggsnn-woap", (2, 48, 48), 10) == count("vggsnn", (2, 48, 48), 10)
    assert round(count("resnet19", (3, 32, 32), 10) / 1e6, 2) == 12.63
    assert round(count("sew-resnet34", (3, 224, 224), 100) / 1e6, 2) == 21.34
    assert count("spiking-resnet34", (3, 224, 224), 100) == count("sew-resnet34", (3, 224, 224), 100)


def test_parameter_count_of_kims_resnet19():
    """9 k^2 a b for each convolution from its structure, 2 b for each batch norm, and the linear layer."""
    channels = [128, *[256] * 6, *[512] * 10]
    convolutions = sum(9 * a * b for a, b in zip([3, *channels[:-1]], channels, strict=True))
    shortcuts = 128 * 256 + 256 * 512 + 512 * 512
    norms = 2 * (sum(channels) + 256 + 512 + 512)
    assert count("resnet19-kim", (3, 32, 32), 10) == convolutions + shortcuts + norms + 512 * 10 + 10


@pytest.mark.parametrize("name", MODELS)
def test_width_scales_every_channel_count(name):
    shape, _ = SHAPES[name]
    shapes = []
    for width in (0.25, 0.5):
        with torch.device("meta"):
            model = build(name, input_shape=shape, num_classes=CLASSES, num_steps=2, width=width)
        shapes.append({n: p.shape for n, p in model.named_parameters()})
    narrow, wide = shapes
    for n in narrow:
        ends = {0: CLASSES} if n.startswith("net.classifier") else {}
        ends |= {1: shape[0]} if n == "net.conv1.weight" else {}
        for axis, (a, b) in enumerate(zip(narrow[n], wide[n], strict=True)):
            if axis < 2:
                assert (a == b == ends[axis]) if axis in ends else (b == 2 * a)


@pytest.mark.parametrize("name", [n for n in MODELS if n not in ("tiny", "cnn5", "vggsnn")])
def test_networks_without_pools_take_any_image(name):
    for shape in ((1, 1, 1), (2, 3, 5), (4, 19, 33)):
        model = build(name, input_shape=shape, num_classes=3, num_steps=2, width=0.02)
        assert model.eval()(torch.rand(2, *shape)).shape == (2, 2, 3)


def test_names_of_spiking_layers_are_readable():
    assert list(spiking_layers(small("vggsnn"))) == [f"net.lif{i}" for i in range(1, 9)]
    names = list(spiking_layers(small("resnet19")))
    assert names[:3] == ["net.lif1", "net.stage1.block1.lif1", "net.stage1.block1.lif2"]
    assert names[-2:] == ["net.stage3.block2.lif2", "net.lif_fc"] and len(names) == 18
    sew = list(spiking_layers(small("sew-resnet34")))
    assert "net.stage2.block1.shortcut.lif" in sew and len(sew) == 1 + 2 * 16 + 3


# --- the forward pass by hand, one timestep at a time, from the weights by name


class ByHand:
    """Plain functions on a state dict; ``v`` holds the membrane potential of each neuron layer by name."""

    def __init__(self, state, leak=0.5):
        self.p, self.v, self.leak, self.largest = state, {}, leak, 0.0

    def spikes(self, name, current):
        h = self.leak * self.v.get(name, 0.0) + current
        s = (h >= 1.0).to(h)
        self.v[name] = h * (1 - s)
        return s

    def conv_bn(self, conv, bn, x, stride):
        weight = self.p[f"{conv}.weight"]
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        mean, var, scale, shift = (
            self.p[f"{bn}.{k}"].view(-1, 1, 1) for k in ("running_mean", "running_var", "weight", "bias")
        )
        return scale * (x - mean) / (var + 1e-5).sqrt() + shift

    def block(self, name, x, stride, sew):
        y = self.spikes(f"{name}.lif1", self.conv_bn(f"{name}.conv1", f"{name}.bn1", x, stride))
        y = self.conv_bn(f"{name}.conv2", f"{name}.bn2", y, 1)
        if f"{name}.shortcut.conv.weight" in self.p:
            x = self.conv_bn(f"{name}.shortcut.conv", f"{name}.shortcut.bn", x, stride)
            x = self.spikes(f"{name}.shortcut.lif", x) if sew else x
        out = self.spikes(f"{name}.lif2", y) + x if sew else self.spikes(f"{name}.lif2", y + x)
        self.largest = max(self.largest, float(out.max()))
        return out

    def linear(self, name, x):
        return x @ self.p[f"{name}.weight"].T + self.p[f"{name}.bias"]

    def residual(self, frame, *, stem_stride, max_pool, stages, sew, hidden):
        x = self.spikes("net.lif1", self.conv_bn("net.conv1", "net.bn1", frame, stem_stride))
        x = F.max_pool2d(x, 3, 2, 1) if max_pool else x
        for i, (blocks, stride) in enumerate(stages, 1):
            for j in range(1, blocks + 1):
                x = self.block(f"net.stage{i}.block{j}", x, stride if j == 1 else 1, sew)
        x = x.mean((2, 3))
        x = self.spikes("net.lif_fc", self.linear("net.fc", x)) if hidden else x
        return self.linear("net.classifier", x)

    def chain(self, frame, *, stages, pools):
        x, number = frame, 0
        for stage in stages:
            for i in range(1, stage + 1):
                number += 1
                stride = 2 if i == stage and not pools else 1
                x = self.spikes(f"l{number}", self.conv_bn(f"net.conv{number}", f"net.bn{number}", x, stride))
            x = F.avg_pool2d(x, 2) if pools else x
        return self.linear("net.classifier", x.flatten(1))


R19, KIM = [(3, 1), (3, 2), (2, 2)], [(3, 2), (3, 2), (2, 2)]
R34 = [(3, 1), (4, 2), (6, 2), (3, 2)]
STRUCTURES = {
    "tiny": dict(stages=[1, 1], pools=True),
    "cnn5": dict(stages=[2, 1, 1], pools=True),
    "vggsnn": dict(stages=[2, 2, 2, 2], pools=True),
    "vggsnn-woap": dict(stages=[2, 2, 2, 2], pools=False),
    "resnet19": dict(stem_stride=1, max_pool=False, stages=R19, sew=False, hidden=True),
    "resnet19-kim": dict(stem_stride=1, max_pool=False, stages=KIM, sew=False, hidden=False),
    "sew-resnet34": dict(stem_stride=2, max_pool=True, stages=R34, sew=True, hidden=False),
    "spiking-resnet34": dict(stem_stride=2, max_pool=True, stages=R34, sew=False, hidden=False),
}


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_those_computed_by_hand(name):
    model, x = settled(name, None), inputs(name, None)
    by_hand = ByHand(model.state_dict())
    step = by_hand.residual if "stem_stride" in STRUCTURES[name] else by_hand.chain
    expected = torch.stack([step(frame, **STRUCTURES[name]) for frame in x.transpose(0, 1)])
    assert torch.allclose(model(x), expected, rtol=1e-9, atol=1e-12)
    assert len(by_hand.v) == len(spiking_layers(model))
    assert by_hand.largest <= 1 or name == "sew-resnet34"
    assert by_hand.largest > 1 or name != "sew-resnet34"


@pytest.mark.parametrize("kind", [ResidualBlock, SEWBlock])
def test_names_and_shapes_of_a_block(kind):
    norm = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    plain = {"conv1.weight": (5, 5, 3, 3), "conv2.weight": (5, 5, 3, 3)}
    plain |= {f"{bn}.{k}": () if k == norm[-1] else (5,) for bn in ("bn1", "bn2") for k in norm}
    halving = plain | {"conv1.weight": (5, 4, 3, 3), "shortcut.conv.weight": (5, 4, 1, 1)}
    halving |= {f"shortcut.bn.{k}": () if k == norm[-1] else (5,) for k in norm}
    for block, expected in ((kind(5, 5, 1, None), plain), (kind(4, 5, 2, None), halving)):
        assert {n: tuple(v.shape) for n, v in block.state_dict().items()} == expected


BAD = [
    ({"name": "huge"}, r"^model is 'huge'; give one of 'tiny', 'cnn5', 'vggsnn', 'vggsnn-woap', 'resnet19', .*\.$"),
    ({"input_shape": (1, 3, 8)}, r"^input_shape is \(1, 3, 8\); tiny pools twice and needs images of at least 4x4\.$"),
    ({"name": "cnn5", "input_shape": (1, 8, 7)}, "cnn5 pools three times and needs images of at least 8x8"),
    ({"name": "vggsnn", "input_shape": (1, 8, 8)}, "vggsnn pools four times and needs images of at least 16x16"),
    ({"input_shape": (3, 0, 8)}, r"^input_shape is \(3, 0, 8\); give \(channels, height, width\), three whole numbers"),
    ({"input_shape": (8, 8)}, r"^input_shape is \(8, 8\); give \(channels, height, width\), three whole numbers"),
    ({"input_shape": 8}, r"^input_shape is 8; give \(channels, height, width\), three whole numbers of at least 1\.$"),
    ({"num_classes": 1}, r"^num_classes is 1; give a whole number of at least 2\.$"),
    ({"num_classes": 2.5}, r"^num_classes is 2\.5; give a whole number of at least 2\.$"),
    ({"width": 0}, r"^width is 0; give a factor for the channel counts, above 0 and at most 1000\.$"),
    ({"width": float("nan")}, r"^width is nan; give a factor for the channel counts"),
    ({"width": "0.5"}, r"^width is '0\.5'; give a factor for the channel counts"),
    ({"width": True}, r"^width is True; give a factor for the channel counts"),
    (
        {"neuron": "lif"},
        r"^neuron is 'lif'; give a snn_probe\.neurons\.lif\.Neuron, or None for that of TET and TRT\.$",
    ),
]


@pytest.mark.parametrize(("options", "sentence"), BAD)
def test_unknown_and_unfit(options, sentence):
    good = {"name": "tiny", "input_shape": (1, 8, 8), "num_classes": 10, "num_steps": 4}
    with pytest.raises(ValueError, match=sentence):
        build(**{**good, **options})
