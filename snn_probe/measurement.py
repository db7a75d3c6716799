"""One measurement of one checkpoint: what a probe command asks for, and how much work that is."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snn_probe.checkpoint import Checkpoint, build_model
from snn_probe.config import RunConfig, Stage
from snn_probe.distributed import own_device
from snn_probe.own import is_own
from snn_probe.own.network import check_own_network
from snn_probe.results import Result
from snn_probe.subjects import Subject
from snn_probe.system import load_split

DEFAULT_EXAMPLES = 512


@dataclass(frozen=True)
class Job:
    """One checkpoint under a probe: its file, its network, its batches (with progress), and where its result goes."""

    file: Path
    checkpoint: Checkpoint
    model: Any
    batches: Any
    path: Path


Passes = tuple[float, float, float]  # forward, backward and curvature products, each through all examples


@dataclass(frozen=True)
class Effort:
    """How much work a measurement, or the part of one that has a ``name``, is.

    ``measure(job, repeats)`` does it with ``least`` or more of its ``repeats``, which are called ``what`` and of which
    there are at most ``bound`` where their number shows on the way only. A calibration takes at most ``most`` of them.
    The memory grows with the examples if it ``keeps`` something of each, and holds in the end as many ``vectors`` of all
    parameters.
    ``passes`` tells what so many repeats are from a result's settings and the examples at a time.
    """

    measure: Callable[[Job, int], Result]
    passes: Callable[[dict[str, Any], int, int], Passes]
    repeats: int = 1
    least: int = 1
    what: str = ""
    bound: int | None = None
    most: int | None = None
    vectors: int = 0
    keeps: bool = False
    name: str | None = None


def once(measure: Callable[[Job], Result], passes: Callable[[dict[str, Any], int], Passes]) -> tuple[Effort]:
    """The effort of what goes through the examples once; ``passes`` of the settings and the examples at a time."""
    return (Effort(lambda job, repeats: measure(job), lambda settings, repeats, batch: passes(settings, batch)),)


@dataclass(frozen=True)
class Measurement:
    """A probe to run on each checkpoint: the name of its files, the call, what to print of a result, the name of the
    table and figures that it shares with others (None: its own), and how much work it is, in one or more parts."""

    name: str
    measure: Callable[[Job], Result]
    lines: Callable[[Result], list[str]]
    together: str | None = None
    efforts: tuple[Effort, ...] = ()


Reader = Callable[..., Any]
"""What :func:`snn_probe.system.load_split` is, or that and a memory."""


def reading_once() -> Reader:
    """``load_split`` that keeps what it read last, so that the checkpoints of a run share their examples."""
    kept: dict[tuple, Any] = {}

    def read(config: RunConfig, split: str, *, stage: Stage, num_examples: int | None = None, data_root=None) -> Any:
        key = (config.dataset, split, stage.num_steps, num_examples, data_root, config.image_size, config.classes)
        if key not in kept:
            if len(kept) > 1:  # the whole split, and the part that is measured
                kept.clear()
            kept[key] = load_split(config, split, stage=stage, num_examples=num_examples, data_root=data_root)
        return kept[key]

    return read


def prepared(
    subject: Subject,
    split: str,
    num_examples: int | None,
    data_root: Path | None,
    device: str,
    read: Reader = load_split,
) -> tuple[Checkpoint, Any, int, Any]:
    """The checkpoint, its examples and how many these are, and its network on the device."""
    checkpoint = subject.load()
    data, count = examples(checkpoint, split, num_examples, data_root, read)
    model = build_model(checkpoint).to(own_device(device))
    if is_own(checkpoint.config.model):
        network = checkpoint.card["network"]
        check_own_network(checkpoint.config.model, model, data, checkpoint.stage.num_steps, network)
    return checkpoint, data, count, model


def examples(
    checkpoint: Checkpoint,
    split: str,
    num_examples: int | None,
    data_root: Path | None = None,
    read: Reader = load_split,
) -> tuple[Any, int]:
    """The first ``num_examples`` of the split (512, or all if fewer); of train only what was trained on."""
    config = checkpoint.config
    common: dict[str, Any] = dict(stage=checkpoint.stage, data_root=data_root)
    data = read(config, split, **common)
    most = len(data) if split != "train" or config.train_examples is None else config.train_examples
    wanted = min(DEFAULT_EXAMPLES, most) if num_examples is None else num_examples
    if wanted > most:
        raise ValueError(
            f"--num-examples is {wanted}, but the {split} split of this run has {most} examples; give at most that."
        )
    return read(config, split, num_examples=wanted, **common), wanted
