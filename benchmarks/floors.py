"""Each probe's time over the arithmetic it cannot avoid: ``python benchmarks/floors.py [--repeats 5]``.

The floor is made of the network's own convolutions and linear layers, timed alone in the same run at the shapes of a
forward pass over all timesteps at once, the faster of contiguous and channels last: F forward, I for the gradient of
the inputs, W for that of the weights. What each probe needs of them is in ``benchmarks/README.md``. Beside it stand
the bytes that its neurons have to move, at the bandwidth of a copy measured here.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from cases import T, settled, vgg_case
from contests import machine
from torch import nn

from snn_probe.models import build
from snn_probe.objectives import SDT
from snn_probe.probes import (
    fisher_trace,
    hessian_density,
    hessian_eigenvalues,
    hessian_trace,
    loss_slice,
    spiking_activity,
    temporal_gradient_norms,
    timestep_accuracy,
)
from snn_probe.temporal import spiking_layers

PRODUCTS, POINTS = 3, 5


@dataclass
class Alone:
    """Seconds of a network's convolutions and linear layers for one batch, and how many neuron updates it has."""

    forward: float = 0.0
    inputs: float = 0.0
    weights: float = 0.0
    updates: int = 0


def median(function: Callable[[], object], repeats: int) -> float:
    function()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def alone(model: nn.Module, inputs: torch.Tensor, repeats: int) -> Alone:
    """The arithmetic of one forward and backward pass over all timesteps at once, without anything between the layers."""
    calls: list[tuple[nn.Module, torch.Size, torch.Size]] = []
    found = Alone()

    def note(module, args, result):
        calls.append((module, args[0].shape, result.shape))

    def count(module, args):
        found.updates += args[0].numel()

    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    handles = [m.register_forward_hook(note) for m in layers]
    handles += [m.register_forward_pre_hook(count) for m in spiking_layers(model).values()]
    with torch.no_grad():
        model(inputs)
    for handle in handles:
        handle.remove()
    first = calls[0][0]
    for module, shape, made in calls:
        seconds = [_call(module, shape, made, form, repeats) for form in _forms(module)]
        forward, towards_inputs, towards_weights = min(seconds, key=sum)
        found.forward += forward
        found.inputs += 0.0 if module is first else towards_inputs
        found.weights += towards_weights
    return found


def _forms(module: nn.Module) -> tuple[torch.memory_format, ...]:
    forms = (torch.contiguous_format, torch.channels_last)
    return forms if isinstance(module, nn.Conv2d) else forms[:1]


def _call(module, shape, made, form, repeats: int) -> tuple[float, float, float]:
    weight = module.weight.detach()
    if isinstance(module, nn.Linear):
        x, g = torch.rand(shape).flatten(0, -2), torch.rand(made).flatten(0, -2)
        return tuple(median(f, repeats) for f in (lambda: x @ weight.mT, lambda: g @ weight, lambda: g.mT @ x))
    x, g = (torch.rand(s).flatten(0, -4).to(memory_format=form) for s in (shape, made))
    settings = (module.stride, module.padding, module.dilation, False, [0, 0], module.groups)

    def backward(*mask):
        return lambda: torch.ops.aten.convolution_backward(g, x, weight, None, *settings, [*mask, False])

    forward = median(lambda: F.conv2d(x, weight, None, *settings[:3], module.groups), repeats)
    return forward, median(backward(True, False), repeats), median(backward(False, True), repeats)


def copy_bandwidth(repeats: int) -> float:
    """Bytes per second read and written by a copy of 256 MB."""
    a, b = torch.rand(2**26), torch.empty(2**26)
    return 2 * a.nbytes / median(lambda: b.copy_(a), repeats)


def convolution_rate(repeats: int) -> float:
    """Operations per second of a 3x3 convolution, 256 channels, 16x16, 32 images: float32, channels last."""
    x, weight = torch.rand(32, 256, 16, 16).to(memory_format=torch.channels_last), torch.rand(256, 256, 3, 3)
    return 2 * x.numel() * 256 * 9 / median(lambda: F.conv2d(x, weight, None, 1, 1), repeats)


def networks(size: int):
    """Name, model, one batch, T."""
    model, batches = vgg_case(1, size)
    yield f"VGGSNN half width, 2x48x48, T={T}, {size} examples", model, batches, T
    torch.manual_seed(0)
    images = torch.rand(size, 3, 32, 32)
    model = build("resnet19", input_shape=(3, 32, 32), num_classes=10, num_steps=4, width=0.5)
    yield (
        f"ResNet-19 half width, 3x32x32, T=4, {size} examples",
        settled(model, images),
        [(images, torch.arange(size) % 10)],
        4,
    )


def largest(model, batches):
    """Stops after PRODUCTS products, converged or not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return hessian_eigenvalues(model, batches, SDT(), k=1, max_products=PRODUCTS)


def work(model, batches, steps: int, a: Alone):
    """Name of a probe, its call, the arithmetic it needs in seconds, and the passes over the neurons."""
    prefixes = (steps + 1) / 2
    yield (
        "fisher_trace",
        lambda: fisher_trace(model, batches),
        a.forward + prefixes * (a.inputs + a.weights),
        1 + 2 * prefixes,
    )
    curvature = {
        f"hessian_trace, {PRODUCTS} products": lambda: hessian_trace(model, batches, SDT(), num_probes=PRODUCTS),
        f"hessian_eigenvalues, k=1, {PRODUCTS} products": lambda: largest(model, batches),
        f"hessian_density, {PRODUCTS} products": lambda: hessian_density(
            model, batches, SDT(), num_probes=1, num_steps=PRODUCTS
        ),
    }
    for name, call in curvature.items():
        yield name, call, (1 + 2 * PRODUCTS) * (a.forward + a.inputs + a.weights), 3 + PRODUCTS * 6
    axis = [i / POINTS for i in range(POINTS)]
    yield (
        f"loss_slice, {POINTS} points",
        lambda: loss_slice(model, batches, [SDT()], alphas=axis),
        POINTS * a.forward,
        POINTS,
    )
    yield "temporal_gradient_norms", lambda: temporal_gradient_norms(model, batches, SDT()), a.forward + 2 * a.inputs, 5
    yield "timestep_accuracy", lambda: timestep_accuracy(model, batches), a.forward, 1
    yield "spiking_activity", lambda: spiking_activity(model, batches), a.forward, 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--examples", type=int, default=16)
    options = parser.parse_args()
    rate, bandwidth = convolution_rate(options.repeats), copy_bandwidth(options.repeats)
    print(f"{machine()}; convolution {rate / 1e9:.0f} GFLOP/s, copy {bandwidth / 1e9:.1f} GB/s\n", flush=True)
    for name, model, batches, steps in networks(options.examples):
        a = alone(model, batches[0][0], options.repeats)
        print(
            f"{name}: F {a.forward:.3f} s, I {a.inputs:.3f} s, W {a.weights:.3f} s; {a.updates / 1e6:.0f} M neuron updates\n"
        )
        print("| probe | time | arithmetic | time over it | neurons' bytes |\n| --- | --- | --- | --- | --- |")
        for probe, call, floor, passes in work(model, batches, steps, a):
            seconds = median(call, options.repeats)
            moved = 8 * a.updates * passes / bandwidth
            print(f"| {probe} | {seconds:.3g} s | {floor:.3g} s | {seconds / floor:.2f} | {moved:.2g} s |", flush=True)
        print()


if __name__ == "__main__":
    main()
