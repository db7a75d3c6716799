"""Everything that changes during training, how a stage begins, and what resuming needs.

What is drawn at random in an epoch (order, augmentation, noise in the network) follows from the seed and the epoch's
number alone, so no random state is kept.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch

from snn_probe.config import RunConfig, Stage
from snn_probe.system import build_network
from snn_probe.training_step import TrainingStep


class TrainingState:
    """The network of the current stage with its optimizer, the epochs done, their metrics and the best so far."""

    def __init__(self, config: RunConfig, network: Mapping[str, Any], kept: list[int], device: torch.device):
        self.config, self.network, self.kept, self.device = config, network, kept, device
        self.epoch = 0
        self.rows: list[dict[str, Any]] = []
        self.best: list[float] | None = None
        self._current: tuple[Stage, TrainingStep] | None = None
        self.enter(1)

    @property
    def stage(self) -> Stage:
        """The current stage."""
        return self._entered[0]

    @property
    def step(self) -> TrainingStep:
        """The network of the current stage, its optimizer and its objective."""
        return self._entered[1]

    @property
    def _entered(self) -> tuple[Stage, TrainingStep]:
        assert self._current is not None  # the first stage was entered when the state was made
        return self._current

    def enter(self, epoch: int) -> None:
        """Be in the stage of ``epoch``: at its beginning a network with its T takes over weights and batch-norm
        statistics, and Adam starts anew or, where the stage says so, goes on."""
        stage = self.config.stage_at(epoch)
        if self._number(epoch) == self._number(self.epoch) and self._current is not None:
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
        self._current = stage, step

    def _number(self, epoch: int) -> int:
        """Which stage, from 0, an epoch belongs to; the untrained network (epoch 0) to the first."""
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
        self.epoch = epoch
        self.rows.append(row)
        score = [row["validation_accuracy"], -row["validation_loss"]]
        if self.best is None or score > self.best:
            self.best = score
            return True
        return False

    def saved(self) -> dict[str, Any]:
        """For resume.pt: tensors, and what is plain as JSON text."""
        return {
            "plain": {"epoch": self.epoch, "rows": self.rows, "best": self.best, "save_epochs": self.kept},
            "model": self.step.model.state_dict(),
            "optimizer": self.step.optimizer.state_dict(),
            "scaler": self.step.scaler.state_dict(),
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Be as :meth:`saved` found it."""
        plain = saved["plain"]
        if plain["epoch"]:
            self.enter(plain["epoch"])
        self.epoch, self.rows, self.best = plain["epoch"], list(plain["rows"]), plain["best"]
        self.kept = sorted({*self.kept, *plain["save_epochs"]})
        self.step.model.load_state_dict(saved["model"], strict=True)
        self.step.optimizer.load_state_dict(saved["optimizer"])
        self.step.scaler.load_state_dict(saved.get("scaler", {}))
