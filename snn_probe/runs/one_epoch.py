"""One pass through the training split, which can be left and taken up again between any two of its steps.

What is drawn at random (order, augmentation, noise in the network) follows from the seed, the epoch and the step, so a
position is the number of steps done and the sums over them.
"""

import math
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F

from snn_probe.config import derived_seed
from snn_probe.distributed import rank, share, summed, world_size
from snn_probe.machine.allocation import freed_memory_kept
from snn_probe.machine.interrupts import Interrupted, asked, unbroken
from snn_probe.runs.state import Position, TrainingState

Progress = Callable[[Iterable[Any], str], Iterable[Any]]

SECONDS_BETWEEN_STATES = 600.0  # in a long epoch: what a process that is killed can lose


def one_epoch(
    state: TrainingState, split: Any, epoch: int, progress: Progress, save: Callable[[], object]
) -> dict[str, float | None]:
    """Train once through the split, from ``state.position`` on if that is in this epoch; means over examples, of the
    gradient norm over the steps taken; None for what fp16 made overflow.

    A signal ends it after the current step of all processes, with Interrupted; ``state.position`` then says where.
    ``save()`` is called every ten minutes, in all processes.
    """
    rate = state.set_rate(epoch)
    begun = state.position or Position(epoch)
    shares = _shares(state, split, epoch)
    if begun.steps > len(shares):
        raise ValueError(
            f"The state to resume from is {begun.steps} steps into epoch {epoch}, which has {len(shares)}; restore "
            "resume.pt from a copy, or train anew in another folder."
        )
    shifts = derived_seed(state.config.seed, f"augmentation of epoch {epoch}") if state.config.augment else None
    sums = list(begun.sums) if rank() == 0 else [0.0] * len(begun.sums)
    began = saved = time.monotonic()

    def here(steps: int) -> Position:
        return Position(epoch, steps, tuple(summed(sums, state.device)), begun.seconds + time.monotonic() - began)

    with torch.random.fork_rng(devices=[]), unbroken(), freed_memory_kept(), state.step.ready():
        left = shares[begun.steps :]
        feed = split.feed([own for own, _ in left], augment_seed=shifts, device=state.device) if left else ()
        shown = progress(left, f"epoch {epoch}/{state.config.epochs}")
        for number, ((_, factor), (inputs, labels)) in enumerate(zip(shown, feed, strict=True), begun.steps + 1):
            torch.manual_seed(
                derived_seed(state.config.seed, f"noise of epoch {epoch}, step {number}, process {rank()}")
            )
            state.position = None  # a second signal leaves the state anywhere
            loss, norm, mean = state.step(inputs, labels, factor, where=f"epoch {epoch}, step {number}")
            _add(sums, loss if factor else None, norm, mean, labels)
            stop, due = _wanted(time.monotonic() - saved > SECONDS_BETWEEN_STATES, state.device)
            if stop or due:
                state.position = here(number)
                if stop:
                    raise Interrupted(stop)
                save()
                saved = time.monotonic()
        state.position = here(len(shares))
    return {"learning_rate": rate, **_means(state.position.sums, len(split))}


def _shares(state: TrainingState, split: Any, epoch: int) -> list[tuple[torch.Tensor, float]]:
    """This process's part of each batch of the epoch."""
    generator = torch.Generator().manual_seed(derived_seed(state.config.seed, f"order of epoch {epoch}"))
    order = torch.randperm(len(split), generator=generator).split(state.config.batch_size)
    return [share(indices) for indices in order]


def _add(sums: list[float], loss: float | None, norm: float, mean: torch.Tensor, labels: torch.Tensor) -> None:
    """One step's part of the sums; ``loss`` is None where this process had no example of its own."""
    if loss is not None:
        sums[0] += loss * len(labels)
        sums[1] += F.cross_entropy(mean, labels, reduction="sum").item()
        sums[2] += (mean.argmax(-1) == labels).sum().item()
    if math.isfinite(norm) and rank() == 0:  # the norm is the same in all processes
        sums[3] += norm
        sums[4] += 1


def _means(sums: tuple[float, ...], examples: int) -> dict[str, float | None]:
    names = ("objective", "train_loss", "train_accuracy")
    found = {name: total / examples for name, total in zip(names, sums, strict=False)}
    found["gradient_norm"] = sums[3] / sums[4] if sums[4] else math.nan
    return {name: value if math.isfinite(value) else None for name, value in found.items()}


def _wanted(due: bool, device: torch.device) -> tuple[int, bool]:
    """The signal that asks for the end (0: none) in any process, and whether it is time to save in the first."""
    own = asked() or 0
    if world_size() == 1:
        return own, due
    signals, now = summed([float(bool(own)), float(due and rank() == 0)], device)
    return (own or 15) if signals else 0, bool(now)  # 15: of another process, which torchrun ends by SIGTERM
