"""Two processes of one thread against one: ``python benchmarks/processes.py [--repeats 5] [--only tiny]``.

Both processes start once. In turn the first measures alone, while the other waits, and both measure together, dealing
the batches. Needs two free cores. The floor of the ratio is what memory and caches, which the cores share, allow: it
is measured the same way with convolutions that know nothing of each other.
"""

import argparse
import os
import socket
import statistics
import time

import torch
import torch.distributed as dist
import torch.nn.functional as F
from cases import tiny_case
from contests import machine
from floors import networks
from torch.multiprocessing import spawn

from snn_probe.distributed import dealing, processes
from snn_probe.objectives import SDT
from snn_probe.probes import fisher_trace, hessian_trace, loss_slice, timestep_accuracy

BATCHES, SIZE = 4, 4


def probes(small: bool):
    """What is measured, and how; more of what takes too little time on a small network to tell its checks from it."""
    points, times = (21, 8) if small else (4, 1)
    axis = [i / points for i in range(points)]
    return {
        "fisher_trace": lambda model, batches: fisher_trace(model, batches),
        "hessian_trace, 3 products": lambda model, batches: hessian_trace(model, batches, SDT(), num_probes=3),
        f"loss_slice, {points} points": lambda model, batches: loss_slice(model, batches, [SDT()], alphas=axis),
        f"timestep_accuracy, {times} x the examples": lambda model, batches: timestep_accuracy(model, batches * times),
    }


def timed(call) -> float:
    dist.barrier()
    began = time.perf_counter()
    call()
    dist.barrier()
    return time.perf_counter() - began


def convolutions(count: int) -> None:
    x, weight = torch.rand(8, 128, 24, 24), torch.rand(128, 128, 3, 3)
    for _ in range(count):
        F.conv2d(x, weight, None, 1, 1)


def compare(rank: int, name: str, alone, together, repeats: int) -> None:
    ratios, times = [], []
    for repeat in range(repeats + 1):
        one = timed(alone if rank == 0 else lambda: None)
        two = timed(together)
        if repeat:  # the first is not counted
            ratios.append(one / two)
            times.append((one, two))
    if rank == 0:
        one, two = (statistics.median(column) for column in zip(*times, strict=True))
        print(
            f"| {name} | {one:.3g} s | {two:.3g} s | {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) | {repeats} |",
            flush=True,
        )


def _dealing(call) -> None:
    with dealing():
        call()


def cases(only: str | None):
    """Names, networks and batches."""
    if only in (None, "tiny"):
        yield "tiny, T=10, 256 examples", *tiny_case(8, 32)
    if only != "tiny":
        for name, model, (batch,), _ in networks(BATCHES * SIZE):
            if only is None or name.lower().replace("-", "").startswith(only):
                yield name.partition(",")[0], model, list(zip(*(x.split(SIZE) for x in batch), strict=True))


def work(rank: int, port: int, repeats: int, only: str | None) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # fmt: skip
    with processes():
        if rank == 0:
            print(
                f"{machine()}, 2 processes\n\n| what | 1 process | 2 processes | ratio (pairs) | n |\n| --- | --- | --- | --- | --- |",
                flush=True,
            )
        compare(rank, "independent convolutions", lambda: convolutions(80), lambda: convolutions(40), repeats)
        for name, model, batches in cases(only):
            for probe, call in probes(name.startswith("tiny")).items():

                def run(call=call, model=model, batches=batches):
                    return call(model, batches)

                compare(rank, f"{name}: {probe}", run, lambda: _dealing(run), repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=("tiny", "vggsnn", "resnet19"))
    options = parser.parse_args()
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        port = asked.getsockname()[1]
    spawn(work, args=(port, options.repeats, options.only), nprocs=2)


if __name__ == "__main__":
    main()
