"""Everything that changes during training, how a stage begins, and what resuming needs.

What is drawn at random (order, augmentation, noise in the network) follows from the seed and the numbers of the epoch
and the step alone, so no random state is kept.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from snn_probe.config import RunConfig, Stage
from snn_probe.own.weights import not_finite, plain_tensors
from snn_probe.runs.step import TrainingStep
from snn_probe.system import build_network


@dataclass(frozen=True)
class Position:
    """A place within an epoch: steps done, the sums over them (of all processes: objective, loss, hits, finite gradient
    norms, and how many these are), and the seconds they took."""

    epoch: int
    steps: int = 0
    sums: tuple[float, ...] = (0.0,) * 5
    seconds: float = 0.0


class TrainingState:
    """The network of the current stage with its optimizer, the epochs done, their metrics and the best so far."""

    def __init__(self, config: RunConfig, network: Mapping[str, Any], kept: list[int], device: torch.device):
        self.config, self.network, self.kept, self.device = config, network, kept, device
        self.epoch = 0
        self.rows: list[dict[str, Any]] = []
        self.best: list[float] | None = None
        self.position: Position | None = None  # where training stands within an epoch, if that is known
        self.data: dict[str, Any] | None = None  # what tells the data from others, where the run is saved
        self._current: tuple[int, Stage, TrainingStep] | None = None
        self.enter(1)

    @property
    def stage(self) -> Stage:
        """The current stage."""
        return self._entered[1]

    @property
    def step(self) -> TrainingStep:
        """The network of the current stage, its optimizer and its objective."""
        return self._entered[2]

    @property
    def _entered(self) -> tuple[int, Stage, TrainingStep]:
        assert self._current is not None  # the first stage was entered when the state was made
        return self._current

    def enter(self, epoch: int) -> None:
        """Be in the stage of ``epoch``: at its beginning a network with its T takes over weights and batch-norm
        statistics, and Adam starts anew or, where the stage says so, goes on."""
        stage = self.config.stage_at(epoch)
        number = self._number(epoch)
        if self._current is not None and number == self._current[0]:
            return
        model = build_network(self.config, self.network, stage).to(self.device)
        weights = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(weights, lr=self.config.learning_rate, weight_decay=0.0, fused=True)
        step = TrainingStep(self.config, model, optimizer, stage.objective())
        if self._current is not None:
            model.load_state_dict(self.step.model.state_dict(), strict=True)
            if stage.optimizer == "continue":
                optimizer.load_state_dict(self.step.optimizer.state_dict())
                step.scaler.load_state_dict(self.step.scaler.state_dict())
        self._current = number, stage, step

    def _number(self, epoch: int) -> int:
        """Which stage, from 0, an epoch belongs to."""
        ends = [sum(s.epochs for s in self.config.schedule()[: i + 1]) for i in range(len(self.config.schedule()))]
        return next(i for i, end in enumerate(ends) if epoch <= end)

    def set_rate(self, epoch: int) -> float:
        """0.5 lr (1 + cos(pi e / E)) in epoch e, from 0, of the E of its cosine."""
        done, length = self.config.cosine_at(epoch)
        rate = 0.5 * self.config.learning_rate * (1.0 + math.cos(math.pi * done / length))
        for group in self.step.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def finish(self, epoch: int, row: dict[str, Any]) -> bool:
        """Close an epoch; True if it is the best so far, by validation accuracy, then validation loss."""
        self.epoch, self.position = epoch, None
        self.rows.append(row)
        score = [row["validation_accuracy"], -row["validation_loss"]]
        if self.best is None or score > self.best:
            self.best = score
            return True
        return False

    @property
    def best_epoch(self) -> int | None:
        """The epoch of the best so far."""
        scores = [[row.get("validation_accuracy"), row.get("validation_loss")] for row in self.rows]
        wanted: Any = None if self.best is None else [self.best[0], -self.best[1]]
        return scores.index(wanted) + 1 if wanted in scores else None

    def saved(self) -> dict[str, Any]:
        """For resume.pt: tensors, and what is plain as JSON text."""
        plain = {"epoch": self.epoch, "rows": self.rows, "best": self.best, "save_epochs": self.kept,
                 "config": self.config.to_dict(), "data": self.data}  # fmt: skip
        if self.position is not None:
            plain["position"] = asdict(self.position)
        return {
            "plain": plain,
            "model": self.step.model.state_dict(),
            "optimizer": self.step.optimizer.state_dict(),
            "scaler": self.step.scaler.state_dict(),
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Be as :meth:`saved` found it."""
        plain, place = saved["plain"], saved["plain"].get("position")
        _check(plain, self.config)
        self.position = None if place is None else Position(**{**place, "sums": tuple(place["sums"])})
        if within := plain["epoch"] if self.position is None else self.position.epoch:
            self.enter(within)
        self.epoch, self.rows, self.best = plain["epoch"], list(plain["rows"]), plain["best"]
        self.kept = sorted({*self.kept, *plain["save_epochs"]})
        self.step.model.load_state_dict(saved["model"], strict=True)
        own = self.step.optimizer.state_dict()["param_groups"]
        self.step.optimizer.load_state_dict(saved["optimizer"])
        _check_optimizer(self.step.optimizer, own)
        self.step.scaler.load_state_dict(saved.get("scaler", {}))


def _check(plain: Mapping[str, Any], config: RunConfig) -> None:
    """ValueError unless what is plain of a saved state is of this run's length and of finite numbers."""
    rows, best, kept = (plain.get(name) for name in ("rows", "best", "save_epochs"))
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("its rows are no rows")
    if [row.get("epoch") for row in rows] != list(range(1, plain["epoch"] + 1)):
        raise ValueError("its rows are not those of its epochs")
    if any(set(row) != set(rows[0]) or not all(_number(value) for value in row.values()) for row in rows):
        raise ValueError("its rows are not of the same numbers")
    config.stage_at(plain["epoch"])
    if (place := plain.get("position")) is not None:
        sums = place["sums"]
        if place["epoch"] != plain["epoch"] + 1 or type(place["steps"]) is not int or place["steps"] < 0:
            raise ValueError("its position is not in the epoch after its last")
        if len(sums) != len(Position.sums) or None in sums or not all(map(_number, [*sums, place["seconds"]])):
            raise ValueError("its position has other sums")
    if not isinstance(kept, list) or not all(type(epoch) is int for epoch in kept):
        raise ValueError("its save_epochs are no epochs")
    scores = best if isinstance(best, list) and len(best) == 2 else [None]
    if best is not None and not all(isinstance(score, int | float) and math.isfinite(score) for score in scores):
        raise ValueError("its best is no pair of numbers")


def _number(value: Any) -> bool:
    """Whether a value is None or a finite number."""
    return value is None or (type(value) in (int, float) and math.isfinite(value))


def _check_optimizer(optimizer: torch.optim.Optimizer, own: list[dict[str, Any]]) -> None:
    """ValueError unless a restored optimizer has the settings it was made with, but for the rate, and finite moments of
    its weights' shapes: it would compute with any others, outside their memory even."""
    for group, made in zip(optimizer.state_dict()["param_groups"], own, strict=True):
        for name, value in made.items():
            stored = group.get(name)
            if name != "lr" and (name not in group or type(stored) is not type(value) or stored != value):
                raise ValueError(f"its optimizer has another {name}")
    for weight, moments in optimizer.state.items():
        if set(moments) != {"step", "exp_avg", "exp_avg_sq"} or not plain_tensors(moments) or not_finite(moments):
            raise ValueError("its optimizer has no moments of Adam")
        like = [moments[name] for name in ("exp_avg", "exp_avg_sq")]
        if moments["step"].numel() != 1 or any((m.shape, m.dtype) != (weight.shape, weight.dtype) for m in like):
            raise ValueError("its optimizer has moments of other shapes than the weights")
