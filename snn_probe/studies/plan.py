"""A recipe's products: which runs and results a study consists of, where each lies, and the hash of what makes it.

The hash of a run covers its whole configuration, that of a result its run's, the epoch, and every setting of the probe.
Names and titles make nothing, so they are left out; so is the version of the code, which each product's environment
states.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from snn_probe.config import RunConfig
from snn_probe.studies.recipe import Recipe, epochs_of
from snn_probe.studies.recipe_probes import Probe

FORMAT = "snn_probe.product/1"


@dataclass(frozen=True)
class Run:
    """One training run of a study."""

    arm: str
    group: str
    name: str
    config: RunConfig

    @property
    def path(self) -> str:
        """Its folder below the study's."""
        return f"runs/{self.name}"

    @property
    def made_from(self) -> str:
        """SHA-256 of what makes it."""
        return _digest({"config": self.config.to_dict()})


@dataclass(frozen=True)
class Measurement:
    """One probe on one checkpoint of a run."""

    run: Run
    probe: Probe
    epoch: int

    @property
    def path(self) -> str:
        """Its file below the study's folder."""
        return f"results/{self.probe.name}/{self.run.name}-epoch{self.epoch:04d}.json"

    @property
    def made_from(self) -> str:
        """SHA-256 of what makes it."""
        return _digest({"run": self.run.made_from, "epoch": self.epoch, "probe": self.probe.settings()})


@dataclass(frozen=True)
class Task:
    """A run and all that is measured on it: tasks need nothing of each other."""

    run: Run
    measurements: tuple[Measurement, ...]

    @property
    def epochs(self) -> list[int]:
        """The epochs whose checkpoints are kept."""
        return sorted({one.epoch for one in self.measurements})


def plan(recipe: Recipe) -> list[Task]:
    """All tasks, arm by arm within each size and seed, so that an unfinished study has as many arms as can be."""
    tasks = []
    for size in recipe.sizes:
        for seed in recipe.seeds:
            for arm in recipe.arms:
                parts = [arm] + ["all" if size is None else str(size)] * (len(recipe.sizes) > 1) + [f"seed{seed}"]
                run = Run(arm, recipe.group(size), "-".join(parts), recipe.config(arm, size, seed))
                found = (Measurement(run, one, epoch) for one in recipe.probes for epoch in epochs_of(one, run.config))
                tasks.append(Task(run, tuple(found)))
    return tasks


def products(tasks: list[Task]) -> dict[str, Run | Measurement]:
    """Every run and result by its path below the study's folder."""
    found: dict[str, Run | Measurement] = {}
    for task in tasks:
        found[task.run.path] = task.run
        found |= {one.path: one for one in task.measurements}
    return found


def in_table_order(recipe: Recipe, tasks: list[Task]) -> list[Task]:
    """Group by group, then arm by arm, then by seed: the order of the rows of a study's tables."""
    arms = list(recipe.arms)
    groups = [recipe.group(size) for size in recipe.sizes]
    return sorted(tasks, key=lambda t: (groups.index(t.run.group), arms.index(t.run.arm), t.run.config.seed))


def below(folder: str | Path, path: str) -> Path:
    """The place of a product in a study's folder."""
    return Path(folder, *PurePosixPath(path).parts)


def _digest(what: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps({"format": FORMAT, **what}, sort_keys=True).encode()).hexdigest()
