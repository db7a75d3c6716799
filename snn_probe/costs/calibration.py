"""What work will cost, told from a few small pieces of it: seconds, peak memory, bytes on the disk.

The work has two sizes, n examples and r repeats (grid points, products, 1 where nothing is repeated). Its cost is taken
as

    cost(n, r) = a + b n + c r + d n r,

with none of the four below zero, fitted at four corners, a small and a larger n with a small and a larger r. So what is
needed once, what each example and each repeat adds, and what each example adds at each repeat are told apart; what costs
more than in proportion (memory that runs out, a machine that others use too) is not foreseen.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from snn_probe.machine.allocation import hand_back
from snn_probe.machine.progress import duration

Size = tuple[int, int]  # examples, repeats

SECONDS = 4.0  # how long the corners of small networks are measured again and again
ROUNDS = 5  # at most
now = time.perf_counter  # the clock of all calibration


@dataclass(frozen=True)
class Cost:
    """``seconds``; ``memory``: bytes by which the peak grew beyond what was held before; ``disk``: bytes to write."""

    seconds: float
    memory: float
    disk: float


@dataclass(frozen=True)
class Calibration:
    """The costs of the corners by their sizes."""

    corners: dict[Size, Cost]

    @property
    def examples(self) -> tuple[int, int]:
        """The smaller and the larger number of examples; equal where the whole is as small."""
        counts = [n for n, _ in self.corners]
        return min(counts), max(counts)

    @property
    def repeats(self) -> tuple[int, int]:
        """The smaller and the larger number of repeats."""
        counts = [r for _, r in self.corners]
        return min(counts), max(counts)

    def at(self, examples: float, repeats: float = 1) -> Cost:
        """The cost of another size; never less than that of the largest corner that is no larger."""
        below = [size for size in self.corners if size[0] <= examples and size[1] <= repeats]
        least = [max((astuple(self.corners[size])[i] for size in below), default=0.0) for i in range(3)]
        sums = [_terms((examples, repeats)) @ parts for parts in self._parts]
        return Cost(*map(max, sums, least))

    @cached_property
    def _parts(self) -> list[Any]:
        """a, b, c, d of the seconds, the memory and the disk: least squares of the errors relative to the cost (or to a tenth
        of the largest), none below zero. A
        disturbance then shifts a cost from one part to another, where an exact solution would let one fall below zero
        and the whole with it."""
        from scipy.optimize import nnls

        varying = [True, len(set(self.examples)) > 1, len(set(self.repeats)) > 1]
        terms = np.stack([_terms(size) for size in self.corners]) * [*varying, all(varying)]
        found = []
        for costs in zip(*map(astuple, self.corners.values()), strict=True):
            errors = np.maximum(costs, 0.1 * max(costs) or 1.0)
            weighted = terms / errors[:, None]
            scale = np.maximum(np.linalg.norm(weighted, axis=0), 1e-300)
            found.append(nnls(weighted / scale, np.array(costs) / errors)[0] / scale)
        return found


def calibrate(
    work: Callable[[int, int], Any],
    whole: Size,
    least: Size,
    *,
    disk: Callable[[Any], float] = lambda found: 0.0,
    device: str = "cpu",
    seconds: float = SECONDS,
) -> Calibration:
    """Measure ``work(examples, repeats)``, which is called with ``least``, a natural smallest piece such as one batch,
    up to about ten such pieces, more where they are quick. ``disk`` says of what ``work`` returned how much is written.

    The median of up to five rounds over all corners, so that a disturbance meets all alike; no round begins after
    ``seconds``. The first call is for warming up, and its time is not used.
    """
    least = (min(least[0], whole[0]), min(least[1], whole[1]))
    hand_back()  # what lies free would be taken first, and not be seen to be needed
    before = held(device)
    times: dict[Size, list[float]] = {}
    costs: dict[Size, tuple[float, float]] = {}

    def measure(size: Size) -> float:
        if size not in costs:
            _forget_peak(device)
        took, found = _timed(work, size)
        times.setdefault(size, []).append(took)
        costs.setdefault(size, (max(0.0, _peak(device) - before), disk(found)))
        return took

    first, began = _timed(work, least)[0], now()
    quick = min(first, measure(least))
    others = _corners(whole, least, seconds / max(quick, 1e-9))
    for number in range(ROUNDS):
        if number and now() - began > seconds:
            break
        for size in [least] * bool(number) + others:
            measure(size)
    return Calibration({size: Cost(median(times[size]), *costs[size]) for size in [least, *others]})


def in_bytes(size: float) -> str:
    """A size in powers of 1000."""
    for unit in ("B", "kB", "MB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


def in_time(seconds: float, shared: float, devices: int) -> str:
    """Seconds on one device and, where there are several, on each of these."""
    said = f"about {duration(seconds)}"
    return said if devices == 1 else f"{said} on one device, {duration(shared)} on {devices}"


def in_memory(before: float, grown: float) -> str:
    """What the peak is made of."""
    return (
        f"about {in_bytes(before + grown)} at the peak: {in_bytes(before)} held before the first pass and "
        f"{in_bytes(grown)} by which the peak grew, measured in the calibration"
    )


def _terms(size: tuple[float, float]) -> Any:
    """What a, b, c and d are multiplied by."""
    n, r = size
    return np.array([1.0, n, r, n * r])


def _corners(whole: Size, least: Size, pieces: float) -> list[Size]:
    """The sizes to measure beside the least, the smaller first: wider apart where there is time for many ``pieces``."""
    room = min(64.0, max(6.0, pieces))
    both = all(w > s for w, s in zip(whole, least, strict=True))
    wide = (room / 2) ** 0.5  # of the repeats there are more, so they have farther to go
    factors = [round(wide), round(2 * wide)] if both else [round(room / 2)] * 2
    larger = [min(w, s * factor) for w, s, factor in zip(whole, least, factors, strict=True)]
    sizes = [(n, r) for n in sorted({least[0], larger[0]}) for r in sorted({least[1], larger[1]})]
    return sizes[1:]


def _timed(work: Callable[[int, int], Any], size: Size) -> tuple[float, Any]:
    began = now()
    found = work(*size)
    return now() - began, found


def held(device: str) -> float:
    """Bytes that this process holds now: of the accelerator's memory, or of the main memory with Python and all data."""
    if device != "cpu":
        import torch

        return torch.cuda.memory_allocated(device)
    return _of_status("VmRSS")


def _peak(device: str) -> float:
    if device != "cpu":
        import torch

        return torch.cuda.max_memory_allocated(device)
    return _of_status("VmHWM")


def _forget_peak(device: str) -> None:
    """Where the system does not allow this, a peak of before counts too: the memory is then an upper bound."""
    if device != "cpu":
        import torch

        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def _of_status(name: str) -> float:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith(name))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1.0 if sys.platform == "darwin" else 1024.0)
