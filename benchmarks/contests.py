"""A contest: the same question to a peer and to us. Time, peak memory and error of both, alternating, in one run."""

import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

HEADER = ("what", "peer", "peer's time", "ours", "ratio (pairs)", "n", "peak memory: peer, ours", "error: peer, ours")


@dataclass(frozen=True)
class Work:
    """Two calls that answer the same question, and how far an answer of either lies from a tight reference."""

    peer: Callable[[], object]
    ours: Callable[[], object]
    error: Callable[[object], float]  # of what peer() or ours() returned


@dataclass(frozen=True)
class Contest:
    """``prepare(small)`` gives the work; small: on a few examples, so that what is loaded once is loaded."""

    name: str
    what: str
    peer: str
    prepare: Callable[[bool], Work]
    error: str  # what the error is relative to
    package: str | None = None  # the peer's distribution, None if it needs none
    pairs_per_repeat: int = 1

    def hold(self, repeats: int) -> list[str] | None:
        """One row of the table; None, with a printed reason, where the peer is missing or does not run."""
        peer = self.peer
        try:
            if self.package is not None:
                peer = f"{self.peer} {version(self.package)}"
            work = self.prepare(False)
            answers = work.peer(), work.ours()  # untimed
        except PackageNotFoundError:
            print(f"{self.what}: left out, {self.package} is not installed (pip install -e '.[bench]')", flush=True)
            return None
        except Exception as error:  # a peer that breaks is a finding, and the others still run
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            print(f"{self.what}: {peer} does not run with torch {torch.__version__}: {reason}", flush=True)
            return None
        errors = [f"{work.error(answer):.1e}" for answer in answers]
        times, ratio = alternate(work.peer, work.ours, repeats * self.pairs_per_repeat)
        memory = [f"{peak_megabytes(self.name, side):.0f} MB" for side in ("peer", "ours")]
        n = str(repeats * self.pairs_per_repeat)
        row = [self.what, peer, *times, ratio, n, ", ".join(memory), ", ".join(errors)]
        print("; ".join(f"{title} {cell}" for title, cell in zip(HEADER, row, strict=True)), flush=True)
        print(f"  (error: {self.error})", flush=True)
        return row


def alternate(peer: Callable[[], object], ours: Callable[[], object], repeats: int) -> tuple[list[str], str]:
    """Median seconds of both, and the median ratio of a pair with the smallest and the largest."""
    pairs = timed_pairs(peer, ours, repeats)
    ratios = sorted(a / b for a, b in pairs)
    medians = [f"{statistics.median(times):.3g} s" for times in zip(*pairs, strict=True)]
    return medians, f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"


def timed_pairs(
    peer: Callable[[], object],
    ours: Callable[[], object],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> list[tuple[float, float]]:
    """Seconds of both, in turn."""

    def seconds(function: Callable[[], object]) -> float:
        began = clock()
        function()
        return clock() - began

    return [(seconds(peer), seconds(ours)) for _ in range(repeats)]


def peak_megabytes(name: str, side: str) -> float:
    """Growth of the peak resident memory during one call, in a process of its own."""
    script = Path(__file__).with_name("run.py")
    fresh = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**20)}  # what was freed before must not be used again unseen
    command = [sys.executable, str(script), "--peak", name, side]
    found = subprocess.run(command, capture_output=True, text=True, env=fresh)
    if found.returncode:
        raise RuntimeError(f"measuring the memory of {name} failed: {found.stderr[-500:]}")
    return float(found.stdout.split()[-1])


def growth(function: Callable[[], object]) -> float:
    """Megabytes by which the peak resident memory grows while ``function`` runs."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak of what was prepared
    except OSError:
        pass  # not Linux, or not allowed: then the growth over the earlier peak, a lower bound
    before = _peak()
    function()
    return _peak() - before


def _peak() -> float:
    """Megabytes. ``ru_maxrss`` only where there is no /proc: on Linux a new process inherits that of its parent."""
    try:
        status = Path("/proc/self/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def machine() -> str:
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            model = next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{model}, {torch.get_num_threads()} threads, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}"


def markdown(rows: list[list[str]]) -> str:
    lines = [HEADER, ["---"] * len(HEADER), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
