"""What training will cost: an epoch of each stage, from some steps and evaluations of a network of that stage."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from snn_probe.config import RunConfig, Stage
from snn_probe.costs import calibration
from snn_probe.costs.calibration import SECONDS, Calibration, calibrate, in_bytes, in_memory, in_time
from snn_probe.data import batches
from snn_probe.distributed import own_device
from snn_probe.evaluation import evaluate
from snn_probe.runs.one_epoch import one_epoch
from snn_probe.runs.state import TrainingState
from snn_probe.system import load_split, network_of
from snn_probe.training import EVALUATION_BATCH

_STATES = 2 * 3  # resume.pt and the one before it: weights and two moments each


@dataclass(frozen=True)
class EpochSize:
    """Of one epoch: its steps, and how many examples it trains on and evaluates."""

    steps: int
    train: int
    evaluated: int

    @property
    def passes(self) -> str:
        """In words."""
        return (
            f"1 forward and 1 backward through {self.train} examples in {self.steps} steps, 1 forward through "
            f"{self.evaluated} to evaluate"
        )


@dataclass(frozen=True)
class EpochCost(EpochSize):
    """Of one epoch of a stage on one of ``devices``: what its steps, its evaluation and its files take."""

    training: Calibration
    evaluation: Calibration
    saving: Calibration
    weights: int
    before: float

    @property
    def seconds(self) -> float:
        """Of training, evaluating and packing what is saved; the disk itself is not counted."""
        parts = self.training.at(self.train), self.evaluation.at(self.evaluated), self.saving.at(1)
        return sum(part.seconds for part in parts)

    @property
    def memory(self) -> float:
        """The growth of the peak, of whatever of the three needs most."""
        return max(c.memory for part in (self.training, self.evaluation, self.saving) for c in part.corners.values())


def epoch_cost(
    config: RunConfig,
    stage: Stage,
    *,
    data_root: Path | None = None,
    device: str = "cpu",
    devices: int = 1,
    seconds: float = SECONDS,
) -> EpochCost:
    """Calibrate one stage of ``config``, on a network that is not trained. Of several ``devices`` each takes its part of
    every batch; what they tell each other is not counted. ``seconds``: see :func:`snn_probe.costs.calibration.calibrate`."""
    network = network_of(config, data_root)
    data, *evaluated = _splits(config, stage, data_root)
    size = _size(config, data, *evaluated)
    own = replace(config, batch_size=math.ceil(config.batch_size / devices), stages=(), epochs=1,
                  num_steps=stage.num_steps, method=stage.method, hyperparameters=stage.hyperparameters)  # fmt: skip
    place = str(own_device(device))
    state = TrainingState(own, network, [], own_device(device))
    before = calibration.held(place)
    first = min(len(evaluated[0]), config.eval_examples or len(evaluated[0]))

    def train(examples: int, repeats: int) -> None:
        state.position = None
        one_epoch(state, _Part(data, examples), 1, lambda items, label: items, lambda: None)

    def measure(examples: int, repeats: int) -> None:
        shown = batches(evaluated[0], EVALUATION_BATCH)
        evaluate(state.step.model, _first(shown, examples))

    def save(examples: int, repeats: int) -> None:
        for content in (state.step.model.state_dict(), state.saved()):
            torch.save(content, io.BytesIO())

    share = min(len(data), math.ceil(len(data) / devices))
    return EpochCost(
        size.steps,
        share,
        math.ceil(size.evaluated / devices),
        calibrate(train, (share, 1), (own.batch_size, 1), device=place, seconds=seconds),
        calibrate(measure, (first, 1), (EVALUATION_BATCH, 1), device=place, seconds=seconds),
        calibrate(save, (1, 1), (1, 1), device=place, seconds=seconds),
        sum(tensor.nbytes for tensor in state.step.model.state_dict().values()),
        before,
    )


def epoch_size(config: RunConfig, stage: Stage, data_root: Path | None = None) -> EpochSize:
    """What an epoch of the stage goes through, without a calibration."""
    return _size(config, *_splits(config, stage, data_root))


def _splits(config: RunConfig, stage: Stage, data_root: Path | None) -> list[Any]:
    """What is trained on, and the two splits that are evaluated."""
    wanted = {"train": config.train_examples, "validation": None, "test": None}
    return [
        load_split(config, split, stage=stage, num_examples=count, data_root=data_root)
        for split, count in wanted.items()
    ]


def _size(config: RunConfig, data: Any, *evaluated: Any) -> EpochSize:
    counts = [min(len(split), config.eval_examples or len(split)) for split in evaluated]
    return EpochSize(math.ceil(len(data) / config.batch_size), len(data), sum(counts))


def bytes_of_run(weights: int, kept: int) -> int:
    """What a run's folder takes at its end, for so many bytes of weights: last, best and ``kept`` more checkpoints, and
    two states to resume from, which have two moments of every weight too."""
    return (2 + kept + _STATES) * weights


def training_lines(config: RunConfig, *, kept: int, done: int = 0, devices: int = 1, **where: Any) -> Iterator[str]:
    """What a run would cost, in lines: its stages, then all of it. ``kept``: epochs whose checkpoints stay, ``done``:
    epochs behind it; ``where``: the data root and the device, as for :func:`epoch_cost`."""
    seconds = shared = 0.0
    ended = weights = 0
    for number, stage in enumerate(config.schedule(), 1):
        ended += stage.epochs
        epochs = min(stage.epochs, ended - done)
        if epochs <= 0:
            continue
        one = epoch_cost(config, stage, **where)
        own = one if devices == 1 else epoch_cost(config, stage, devices=devices, **where)
        seconds, shared = seconds + epochs * one.seconds, shared + epochs * own.seconds
        weights = one.weights
        yield f"stage {number}: {epochs} epochs of {stage.method} with {stage.num_steps} timesteps"
        yield f"  passes  an epoch: {one.passes}"
        yield f"  time    an epoch {in_time(one.seconds, own.seconds, devices)}"
        yield f"  memory  {in_memory(own.before, own.memory)}"
        low, high = one.training.examples
        yield f"  (calibrated on {low} and {high} examples)" if low < high else f"  (calibrated on {low} examples)"
    yield f"in all {in_time(seconds, shared, devices)}; {in_bytes(bytes_of_run(weights, kept))} on the disk"


@dataclass(frozen=True)
class _Part:
    """So many examples of a split, as training takes them."""

    split: Any
    count: int

    def __len__(self) -> int:
        return self.count

    def feed(self, order, **options: Any) -> Any:
        return self.split.feed(order, **options)


def _first(all_batches: Any, count: int) -> Iterator[Any]:
    for inputs, labels in all_batches:
        if count <= 0:
            return
        yield inputs[:count], labels[:count]
        count -= len(labels)
