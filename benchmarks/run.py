"""Times against what people use today, side by side in one run: ``python benchmarks/run.py [--repeats 5]``.

* TRT's penalty, forward and backward, against a loop over t in the paper's form, 12 million parameters, T = 6.
* Exact Fisher traces at T = 10 against the published procedure (T complete passes with batch-mean gradients), on the
  same batches: a half-width VGGSNN at 2x48x48, and ``tiny`` on event-digits.
* Top five Hessian eigenvalues against PyHessian (``pip install pyhessian``; left out where it is not installed).
* A plane of the landscape against loss-landscapes (``pip install loss-landscapes``; likewise).
* Peak memory of the Fisher probe over that of a plain training step at the same batch size.

Peers and ours alternate; each line gives the medians, the smallest and largest ratio of a pair, and n.
"""

import argparse
import math
import platform
import resource
import statistics
import subprocess
import sys
import time

import torch
import torch.nn.functional as F

from snn_probe.checkpoint import build_model
from snn_probe.config import RunConfig
from snn_probe.data import load
from snn_probe.models.tiny import tiny
from snn_probe.models.vgg import vggsnn
from snn_probe.objectives import SDT, trt_penalty
from snn_probe.probes import fisher_trace, hessian_eigenvalues, loss_slice
from snn_probe.temporal import from_spikingjelly
from snn_probe.training import train

T = 10


def seconds(function) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def compare(name: str, peer, ours, repeats: int) -> None:
    """Alternate the two; one untimed call of each first."""
    peer(), ours()
    pairs = [(seconds(peer), seconds(ours)) for _ in range(repeats)]
    ratios = sorted(a / b for a, b in pairs)
    a, b = (statistics.median(times) for times in zip(*pairs, strict=True))
    print(
        f"{name}: peer {a:.4g} s, ours {b:.4g} s, ratio of medians {a / b:.2f} "
        f"(pairs {ratios[0]:.2f} to {ratios[-1]:.2f}, n={repeats})",
        flush=True,
    )


def penalty_by_loop(weights, steps, strength, decay, epsilon):
    total = 0.0
    for t in range(steps):
        for w in weights:
            total = total + (strength * w**2 / (1 + (math.exp(decay * t) - 1) * (w.abs() + epsilon))).sum()
    return total / steps


def bench_penalty(repeats: int) -> None:
    """Kernels as in a ResNet-19: five of 512x512x3x3 and smaller ones, 12.6 million weights."""
    shapes = [(512, 512, 3, 3)] * 5 + [(256, 256, 3, 3), (256, 512), (10, 256)]
    weights = {str(i): (0.05 * torch.randn(s)).requires_grad_() for i, s in enumerate(shapes)}
    leaves = list(weights.values())
    name = f"TRT penalty, {sum(w.numel() for w in leaves) / 1e6:.1f} M parameters, T=6, forward + backward"
    compare(
        name,
        lambda: torch.autograd.grad(penalty_by_loop(leaves, 6, 1e-5, 0.25, 1e-5), leaves),
        lambda: torch.autograd.grad(trt_penalty(weights, 6, strength=1e-5, decay=0.25, epsilon=1e-5), leaves),
        repeats,
    )


def published_fisher(model, batches) -> list[float]:
    """The procedure of arXiv 2211.14406: for each t all T steps over all batches, squared gradient of the batch mean."""
    params = [p for p in model.parameters() if p.requires_grad]
    traces = []
    for t in range(1, T + 1):
        total = 0.0
        for inputs, labels in batches:
            loss = F.cross_entropy(sum(model(inputs)[:t]) / t, labels)
            total += sum(g.square().sum().item() for g in torch.autograd.grad(loss, params))
        traces.append(total / len(batches))
    return traces


def vgg_case(count: int = 2, size: int = 16):
    """Half-width VGGSNN at 2x48x48 on event-like frames, batch statistics moved by a few forwards."""
    torch.manual_seed(0)
    model = from_spikingjelly(vggsnn(input_shape=(2, 48, 48), num_classes=10, width=0.5))
    inputs = (torch.rand(count * size, T, 2, 48, 48) < 0.1).float() * 2
    labels = torch.randint(0, 10, (count * size,))
    return settled(model, inputs[:size]), list(zip(inputs.split(size), labels.split(size), strict=True))


def tiny_case(count: int = 4, size: int = 64):
    torch.manual_seed(0)
    model = from_spikingjelly(tiny(input_shape=(2, 16, 16), num_classes=10))
    split = load("event-digits", "train", num_steps=T, num_examples=count * size)
    batches = list(zip(split.inputs.split(size), split.labels.split(size), strict=True))
    return settled(model, batches[0][0]), batches


def settled(model, inputs):
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(inputs)
    return model.eval()


CASES = {"VGGSNN half width 2x48x48, T=10, 2 batches of 16": vgg_case, "tiny on event-digits, T=10, 4 batches of 64": tiny_case}


def bench_fisher(repeats: int) -> None:
    for name, case in CASES.items():
        model, batches = case()
        compare(f"Fisher, {name}", lambda: published_fisher(model, batches), lambda: fisher_trace(model, batches), repeats)
        exact = fisher_trace(model, batches).table.query("layer == 'all'")["trace"].to_list()
        mean = published_fisher(model, batches)
        print(f"  answers at t=T: per example {exact[-1]:.4g}, published batch-mean estimator {mean[-1]:.4g}", flush=True)


def digits_case(count: int = 256):
    """``tiny`` after one epoch's worth of steps on digits, T = 4, and one batch."""
    config = RunConfig(method="sdt", dataset="digits", epochs=2)
    *_, checkpoint = train(config)
    split = load("digits", "train", num_examples=count)
    return build_model(checkpoint), (split.inputs, split.labels)


def bench_hessian(repeats: int) -> None:
    try:
        from pyhessian import hessian
    except ImportError:
        return print("Hessian: PyHessian is not installed", flush=True)
    model, batch = digits_case()

    def criterion(logits, labels):
        return SDT()(logits, labels)

    def peer():
        return hessian(model, criterion, data=batch, cuda=False).eigenvalues(top_n=5, tol=1e-3)[0]

    def ours():
        return hessian_eigenvalues(model, [batch], SDT(), k=5, tol=1e-3)

    compare("Hessian, top 5, tiny on 256 digits, T=4, tol 1e-3", peer, ours, repeats)
    exact = hessian_eigenvalues(model, [batch], SDT(), k=5, tol=1e-7).table["eigenvalue"].to_numpy()
    found = ours().table
    products = found["products"][0]
    mine = abs(found["eigenvalue"].to_numpy() - exact).max() / exact[0]
    theirs = abs(sorted(peer(), reverse=True) - exact).max() / exact[0]
    print(f"  largest error over the top eigenvalue: peer {theirs:.1e}, ours {mine:.1e} with {products} products and "
          f"residuals up to {found['residual'].max():.1e}", flush=True)  # fmt: skip
    model.zero_grad()


def bench_landscape(repeats: int) -> None:
    try:
        import loss_landscapes
        from loss_landscapes.metrics import Loss
    except ImportError:
        return print("Landscape: loss-landscapes is not installed", flush=True)
    model, batch = digits_case(512)
    points = 5

    def peer():
        metric = Loss(lambda logits, labels: SDT()(logits, labels), *batch)
        return loss_landscapes.random_plane(model, metric, distance=1, steps=points, normalization="filter", deepcopy_model=True)

    def ours():
        axis = [-1 + 2 * i / (points - 1) for i in range(points)]
        return loss_slice(model, [batch], [SDT()], alphas=axis, betas=axis)

    compare(f"Landscape, {points}x{points} points, tiny on 512 digits, T=4", peer, ours, repeats)


def peak_megabytes(which: str, case: str) -> float:
    """Growth of the peak resident memory during the second of two rounds' work, in a process of its own."""
    found = subprocess.run([sys.executable, __file__, "--peak", which, case], capture_output=True, text=True, check=True)
    return float(found.stdout)


def measure_peak(which: str, case: str) -> None:
    model, batches = CASES[case](1)
    inputs, labels = batches[0]
    small = (inputs[:1], labels[:1])

    def step(x, y):
        model.train()
        F.cross_entropy(model(x).mean(0), y).backward()

    work = step if which == "training" else lambda x, y: fisher_trace(model, [(x, y)])
    work(*small)  # libraries and gradients are there before the count begins
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    work(inputs, labels)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def bench_memory() -> None:
    for case in CASES:
        training, probe = peak_megabytes("training", case), peak_megabytes("fisher", case)
        print(
            f"Peak memory, {case}, one batch: training step {training:.0f} MB, Fisher {probe:.0f} MB, "
            f"ratio {probe / training:.2f}",
            flush=True,
        )


def machine() -> str:
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            model = next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{model}, {torch.get_num_threads()} threads, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=("penalty", "fisher", "hessian", "landscape", "memory"))
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        return measure_peak(*options.peak)
    print(f"Machine: {machine()}", flush=True)
    if options.only in (None, "penalty"):
        bench_penalty(4 * options.repeats + 1)
    if options.only in (None, "fisher"):
        bench_fisher(options.repeats)
    if options.only in (None, "hessian"):
        bench_hessian(options.repeats)
    if options.only in (None, "landscape"):
        bench_landscape(options.repeats)
    if options.only in (None, "memory"):
        bench_memory()


if __name__ == "__main__":
    main()
