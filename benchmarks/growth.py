"""Time and memory of each probe against T, N, P and the grid: ``python benchmarks/growth.py [--repeats 3] [-o docs/growth]``.

``tiny`` on random 16x16 event frames, around T = 8, 128 examples in batches of 32 and width 1; against processes, which
torchrun starts with one thread each, 1024 examples, and memory is the first process's. Every value is measured in processes
of its own, which know nothing of the others' memory. The exponent is the slope of a line through the logarithms; what theory
says stands beside it. Writes PREFIX.csv and PREFIX.png.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.distributed as dist
from contests import growth as memory_growth
from contests import machine

from snn_probe.distributed import dealing, processes, rank, world_size
from snn_probe.models import build
from snn_probe.objectives import SDT
from snn_probe.probes import fisher_trace, hessian_trace, loss_slice, temporal_gradient_norms

BASE = {"T": 8, "N": 128, "width": 1.0, "points": 8}
MANY = {"processes": {"N": 1024}}  # enough batches to deal out
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
AXES = {
    "T": (4, 8, 16, 32),
    "N": (64, 128, 256, 512),
    "width": (1.0, 2.0, 4.0, 8.0),
    "points": (4, 8, 16, 32),
    "processes": tuple(2**i for i in range(CORES.bit_length())),
}
BATCH = 32
PROBES = {
    "fisher_trace": lambda model, batches, points: fisher_trace(model, batches),
    "hessian_trace": lambda model, batches, points: hessian_trace(model, batches, SDT(), num_probes=2),
    "loss_slice": lambda model, batches, points: loss_slice(
        model, batches, [SDT()], alphas=[i / points for i in range(points)]
    ),
    "temporal_gradient_norms": lambda model, batches, points: temporal_gradient_norms(model, batches, SDT()),
    "training step": lambda model, batches, points: step(model, batches),
}
THEORY = {"T": {"fisher_trace": 2.0}, "processes": dict.fromkeys(PROBES, -1.0)}  # exponents of the time; 1 elsewhere
ONLY = {"points": ("loss_slice",), "processes": tuple(PROBES)[:4]}


def step(model, batches):
    """Forward and backward of each batch, as in plain training, with SpikingJelly's own neurons."""
    model.train()
    for inputs, labels in batches:
        SDT()(model(inputs), labels, {}).backward()


def case(values):
    torch.manual_seed(0)
    steps, count = int(values["T"]), int(values["N"])
    model = build("tiny", input_shape=(2, 16, 16), num_classes=10, num_steps=None, width=values["width"])
    inputs = (torch.rand(count, steps, 2, 16, 16) < 0.2).float()
    return model, list(zip(inputs.split(BATCH), (torch.arange(count) % 10).split(BATCH), strict=True))


def one(probe: str, axis: str, value: float) -> None:
    """In processes of its own: prints seconds, megabytes, parameters."""
    values = {**BASE, **MANY.get(axis, {}), axis: value}
    call, points = PROBES[probe], int(values["points"])
    with processes(), dealing():
        call(*case({**BASE, "T": 2, "N": 4, "width": values["width"]}), 2)  # what is loaded once
        model, batches = case(values)
        _meet()
        began = time.perf_counter()
        megabytes = memory_growth(lambda: call(model, batches, points))
        _meet()
        seconds = time.perf_counter() - began
        if rank() == 0:
            print(seconds, megabytes, sum(p.numel() for p in model.parameters()))


def _meet() -> None:
    if world_size() > 1:
        dist.barrier()


def measure(probe: str, axis: str, value: float) -> list[float]:
    command, fresh = [sys.executable], {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**20)}
    if axis == "processes":
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={value:g}"]
        fresh["OMP_NUM_THREADS"] = "1"
    done = subprocess.run(
        [*command, __file__, "--one", probe, axis, str(value)], capture_output=True, text=True, env=fresh, check=True
    )
    return [float(word) for word in done.stdout.split()[-3:]]


def sweep(repeats: int) -> pd.DataFrame:
    rows = []
    for axis, values in AXES.items():
        for probe in ONLY.get(axis, PROBES):
            for value in values:
                found = [measure(probe, axis, value) for _ in range(repeats)]
                seconds, megabytes, parameters = (statistics.median(column) for column in zip(*found, strict=True))
                rows.append((axis, probe, value, parameters if axis == "width" else value, seconds, megabytes))
                print(f"{axis} {probe} {value:g}: {seconds:.3g} s, {megabytes:.0f} MB", flush=True)
    return pd.DataFrame(rows, columns=["axis", "probe", "value", "size", "seconds", "megabytes"])


def exponents(table: pd.DataFrame) -> pd.DataFrame:
    """Slopes of log time and log memory against log size, theory's for the time."""
    rows = []
    for (axis, probe), found in table.groupby(["axis", "probe"], sort=False):
        x = np.log(found["size"])
        slopes = [np.polyfit(x, np.log(found[column].clip(lower=1e-9)), 1)[0] for column in ("seconds", "megabytes")]
        rows.append((axis, probe, *slopes, THEORY.get(axis, {}).get(probe, 1.0)))
    return pd.DataFrame(rows, columns=["axis", "probe", "time", "memory", "theory"])


def draw(table: pd.DataFrame, fitted: pd.DataFrame, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    labels = {"T": "timesteps T", "N": "examples N", "width": "parameters P", "points": "grid points",
              "processes": "processes"}  # fmt: skip
    figure, axes = plt.subplots(2, len(AXES), figsize=(13, 5.6), layout="constrained", sharey="row")
    for column, axis in enumerate(AXES):
        for row, (what, unit) in enumerate((("seconds", "time / s"), ("megabytes", "memory / MB"))):
            place = axes[row, column]
            for number, probe in enumerate(PROBES):
                rows = table[(table["axis"] == axis) & (table["probe"] == probe)]
                if len(rows):
                    slope = fitted.query("axis == @axis and probe == @probe")["time" if row == 0 else "memory"].iloc[0]
                    place.loglog(
                        rows["size"], rows[what], marker="o", markersize=3.5, color=f"C{number}", label=f"{slope:.2f}"
                    )
            place.legend(title="exponent", fontsize=7, title_fontsize=7, frameon=False, loc="upper left")
            place.grid(alpha=0.3)
            sizes = sorted(set(table[table["axis"] == axis]["size"]))
            place.set_xticks(sizes, [_short(size) for size in sizes], minor=False, fontsize=8)
            place.set_xticks([], minor=True)
            if row == 1:
                place.set_xlabel(labels[axis])
            if column == 0:
                place.set_ylabel(unit)
    for row in axes:
        row[0].set_ylim(top=30 * row[0].get_ylim()[1])  # room for the exponents
    handles = [plt.Line2D([], [], color=f"C{i}", marker="o", markersize=3.5) for i in range(len(PROBES))]
    figure.legend(handles, list(PROBES), loc="outside upper center", ncols=len(PROBES), frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)


def _short(size: float) -> str:
    """1267722 -> 1.27 M."""
    for factor, letter in ((1e6, "M"), (1e3, "k")):
        if size >= factor:
            return f"{size / factor:.3g} {letter}"
    return f"{size:g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("-o", "--out", type=Path, default=Path("growth"))
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--draw", action="store_true", help="draw PREFIX.csv again, measuring nothing")
    options = parser.parse_args()
    if options.one:
        probe, axis, value = options.one
        return one(probe, axis, float(value))
    file = options.out.with_suffix(".csv")
    table = pd.read_csv(file) if options.draw else sweep(options.repeats)
    if not options.draw:
        table.to_csv(file, index=False)
    fitted = exponents(table)
    print(f"\n{machine()}\n{fitted.round(2).to_string(index=False)}")
    draw(table, fitted, options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
