"""A training step of ResNet-19 beside the released TRT program's: ``python benchmarks/training_step.py [--repeats 7]``.

T = 4, batch 8, 32x32 RGB, TRT's objective, Adam, float32 and bfloat16 autocast. Peer (``released_step.py``) and ours
alternate and start from the same weights; each line gives the medians, the ratio of medians, the smallest and
largest ratio of a pair, and n. Then: where the time goes; the share beside forward and backward; and the step over two
floors measured in the same run, for the fastest of ours: its floating point operations at the rate of the fastest
channels-last convolution, and its 3x3 convolutions alone, forward and backward.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from contests import machine
from released_step import ResNet19, loss_of, penalty_of
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from snn_probe.data.augment import CropFlipCutout, draws
from snn_probe.models import build
from snn_probe.neurons.multi_step import fast_training
from snn_probe.objectives import TRT, trt_penalty
from snn_probe.parameters import trainable
from snn_probe.penalty import compiled_penalty
from snn_probe.runs.compiling import CompiledForward

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16}
OBJECTIVE = TRT()
CONVOLUTIONS = (  # how many, channels inward and outward, the images' side over the network's, stride
    (1, 64, 128, 1, 1),
    (5, 128, 128, 1, 1),
    (1, 128, 256, 1, 2),
    (5, 256, 256, 2, 1),
    (1, 256, 512, 2, 2),
    (3, 512, 512, 4, 1),
)
IMAGES = 1024
BESIDE = ("data", "objective", "penalty", "metrics")
Parts = dict[str, float]


class Watch:
    """Seconds of each part of a step."""

    def __init__(self):
        self.parts: Parts = {}
        self.last = time.perf_counter()

    def __call__(self, part: str) -> None:
        now = time.perf_counter()
        self.parts[part] = self.parts.get(part, 0.0) + now - self.last
        self.last = now


class Data:
    """Random images as bytes in memory, cropped, mirrored and cut as for CIFAR."""

    def __init__(self, batch: int, side: int):
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randint(0, 256, (IMAGES, 3, side, side), dtype=torch.uint8, generator=generator)
        self.labels = torch.randint(0, 10, (IMAGES,), generator=generator)
        self.augmentation = CropFlipCutout(padding=4, cut=side // 2)
        self.table = draws(IMAGES, self.augmentation.num_draws, seed=0)
        self.order = torch.randperm(IMAGES, generator=generator).split(batch)
        self.step = 0

    def batch(self) -> tuple[Tensor, Tensor]:
        index = self.order[self.step % (len(self.order) - 1)]
        self.step += 1
        inputs = self.augmentation(self.images[index], self.table[index])
        return (inputs.float() / 255 - 0.5) / 0.25, self.labels[index]


def autocast(dtype: torch.dtype | None):
    return nullcontext() if dtype is None else torch.autocast("cpu", dtype)


def released(options, dtype: torch.dtype | None, penalized: bool) -> Callable[[], Parts]:
    """The peer's step: everything inside autocast, the penalty on the tape."""
    model = ResNet19(options.num_steps).train()
    copy_weights(network(options), model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    data = Data(options.batch_size, options.side)

    def step() -> Parts:
        watch = Watch()
        inputs, labels = data.batch()
        watch("data")
        with autocast(dtype):
            logits = model(inputs)
            watch("forward")
            loss = loss_of(logits, labels, OBJECTIVE.mse_weight)
            watch("objective")
            if penalized:
                settings = (OBJECTIVE.strength, OBJECTIVE.decay, OBJECTIVE.epsilon)
                loss = loss + sum(penalty_of(model, t, *settings) for t in range(options.num_steps)) / options.num_steps
                watch("penalty")
        optimizer.zero_grad()
        loss.backward()
        watch("backward")
        optimizer.step()
        watch("optimizer")
        loss.item(), (logits.mean(1).argmax(-1) == labels).sum().item()
        watch("metrics")
        return watch.parts

    return step


def ours(options, dtype: torch.dtype | None, penalized: bool, form: str = "channels last") -> Callable[[], Parts]:
    """Closed-form neurons, the objective in float32, fused Adam; weights stay contiguous, inputs as ``form`` says."""
    model = network(options)
    params = trainable(model)
    optimizer = torch.optim.Adam(params.values(), lr=1e-3, fused=True)
    data = Data(options.batch_size, options.side)
    compiled = CompiledForward(model, torch.device("cpu")) if form == "compiled" else None

    def step() -> Parts:
        watch = Watch()
        inputs, labels = data.batch()
        if form == "channels last":
            inputs = inputs.to(memory_format=torch.channels_last)
        watch("data")
        with autocast(dtype), fast_training(model), compiled.on(inputs) if compiled else nullcontext():
            logits = model(inputs)
        watch("forward")
        logits = logits.float()
        loss = OBJECTIVE.without_penalty(logits, labels)
        watch("objective")
        if penalized:
            settings = {"strength": OBJECTIVE.strength, "decay": OBJECTIVE.decay, "epsilon": OBJECTIVE.epsilon}
            with compiled_penalty() if compiled else nullcontext():
                loss = loss + trt_penalty(params, options.num_steps, **settings)
            watch("penalty")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        watch("backward")
        optimizer.step()
        watch("optimizer")
        mean = logits.detach().mean(0)
        F.cross_entropy(mean, labels).item(), (mean.argmax(-1) == labels).sum().item()
        torch.nn.utils.get_total_norm([p.grad for p in params.values()]).item()
        watch("metrics")
        return watch.parts

    return step


def network(options) -> torch.nn.Module:
    shape = (3, options.side, options.side)
    return build("resnet19", input_shape=shape, num_classes=10, num_steps=options.num_steps).train()


def copy_weights(source: torch.nn.Module, peer: torch.nn.Module) -> None:
    with torch.no_grad():
        for theirs, weight in zip(peer.parameters(), source.parameters(), strict=True):
            theirs.copy_(weight)


def compare(options, precision: str) -> None:
    """Peer and ours in turn, with and without the penalty; ours with contiguous memory, and compiled (--compile)."""
    dtype = PRECISIONS[precision]
    steps = {
        "peer": released(options, dtype, True),
        "ours": ours(options, dtype, True),
        "peer, no penalty": released(options, dtype, False),
        "ours, no penalty": ours(options, dtype, False),
        "ours, contiguous": ours(options, dtype, True, "contiguous"),
        "ours, compiled": ours(options, dtype, True, "compiled"),
    }
    for name, step in steps.items():
        began = time.perf_counter()
        step()
        if name == "ours, compiled":
            print(f"{precision}: compiling took {time.perf_counter() - began:.0f} s", flush=True)
    found: dict[str, list[Parts]] = {name: [] for name in steps}
    for _ in range(options.repeats):
        for name, step in steps.items():
            found[name].append(step())
    contests = [("peer", name) for name in ("ours", "ours, contiguous", "ours, compiled")]
    for peer, mine in [*contests, ("peer, no penalty", "ours, no penalty")]:
        pairs = [(sum(a.values()), sum(b.values())) for a, b in zip(found[peer], found[mine], strict=True)]
        ratios = sorted(a / b for a, b in pairs)
        a, b = (statistics.median(times) for times in zip(*pairs, strict=True))
        print(
            f"{precision}: {peer} {a:.3f} s, {mine} {b:.3f} s, ratio of medians {a / b:.2f} "
            f"(pairs {ratios[0]:.2f} to {ratios[-1]:.2f}, n={options.repeats})",
            flush=True,
        )
    for name in ("peer", "ours", "ours, compiled"):
        report_parts(f"{precision}, {name}", found[name])
    best = min(statistics.median(sum(p.values()) for p in found[name]) for _, name in contests)
    report_floor(options, precision, best)


def report_parts(name: str, steps: list[Parts]) -> None:
    parts = {part: statistics.median(step[part] for step in steps) for part in steps[0]}
    whole = sum(parts.values())
    beside = sum(parts.get(part, 0.0) for part in BESIDE)
    listed = ", ".join(f"{part} {1000 * seconds:.1f}" for part, seconds in parts.items())
    print(f"  {name}, ms: {listed}; {' + '.join(BESIDE)} {100 * beside / whole:.1f} % of the step", flush=True)


def report_floor(options, precision: str, seconds: float) -> None:
    rate, alone = convolutions(PRECISIONS[precision] or torch.float32, options)
    counter = FlopCounterMode(display=False)
    with counter:
        ours(options, None, False)()
    work = counter.get_total_flops()
    print(
        f"  floors: {work / 1e9:.0f} GFLOP at {rate / 1e9:.0f} GFLOP/s (fastest channels-last convolution) "
        f"{work / rate:.3f} s, {seconds * rate / work:.2f} times that; the 3x3 convolutions alone {alone:.3f} s, "
        f"{seconds / alone:.2f} times that",
        flush=True,
    )


def convolutions(dtype: torch.dtype, options) -> tuple[float, float]:
    """The fastest forward rate (operations per second), and the seconds of all of them, forward and backward."""
    fastest, alone = 0.0, 0.0
    for count, inward, outward, shrink, stride in CONVOLUTIONS:
        side = options.side // shrink
        x = torch.rand(options.num_steps * options.batch_size, inward, side, side).to(dtype)
        x = x.to(memory_format=torch.channels_last).requires_grad_()
        weight = torch.randn(outward, inward, 3, 3).to(dtype).requires_grad_()
        forward, both = [], []
        for _ in range(options.repeats + 2):
            began = time.perf_counter()
            y = F.conv2d(x, weight, None, stride, 1)
            forward.append(time.perf_counter() - began)
            upstream = torch.ones_like(y)
            began = time.perf_counter()
            torch.autograd.grad(y, (x, weight), upstream)
            both.append(forward[-1] + time.perf_counter() - began)
        fastest = max(fastest, 2 * y.numel() * weight[0].numel() / min(forward))
        alone += count * statistics.median(both[1:])
    return fastest, alone


def report_agreement(options) -> None:
    """Loss and gradients of peer and ours on one batch, with a read-out that is not silent.

    In float64: in float32 single spikes differ with the order of a convolution's sum, and more in every layer after.
    """
    mine, peer = network(options).double(), ResNet19(options.num_steps).train().double()
    with torch.no_grad():
        mine.net.fc.weight.mul_(4.0)
    copy_weights(mine, peer)
    inputs, labels = Data(options.batch_size, options.side).batch()
    inputs = inputs.double()
    with fast_training(mine):
        logits = mine(inputs.to(memory_format=torch.channels_last))
    losses = OBJECTIVE.without_penalty(logits, labels), loss_of(peer(inputs), labels, OBJECTIVE.mse_weight)
    found, expected = (
        torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
        for loss, model in zip(losses, (mine, peer), strict=True)
    )
    print(
        f"agreement in float64: loss ours {losses[0].item():.10f}, peer {losses[1].item():.10f}; norm of the "
        f"difference of the gradients over the norm {(found - expected).norm() / expected.norm():.1e}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--only", choices=tuple(PRECISIONS))
    parser.add_argument("--num-steps", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--side", type=int, default=32, help="of the images; smaller for a quick look")
    options = parser.parse_args()
    if options.repeats < 1:
        parser.error(f"--repeats is {options.repeats}; give a whole number of at least 1.")
    print(f"Machine: {machine()}; ResNet-19, T={options.num_steps}, batch {options.batch_size}", flush=True)
    report_agreement(options)
    for precision in PRECISIONS:
        if options.only in (None, precision):
            compare(options, precision)


if __name__ == "__main__":
    main()
