"""Making a study's products: which are missing, training and measuring them, and removing what no longer belongs.

A result says in its source what made it (``made_from``), a run in its config.json; every file is written whole or not
at all. So whatever was there before, and wherever it stopped, what is fresh is kept and the rest is made.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from snn_probe.checkpoint import load
from snn_probe.config import RunConfig
from snn_probe.machine.files import read_json, read_text, remove_leftovers
from snn_probe.own import allowed, is_own
from snn_probe.results import save
from snn_probe.runs.run_folder import RunFolder
from snn_probe.studies.measure import measure
from snn_probe.studies.plan import Measurement, Run, Task, below, products
from snn_probe.system import resolved, with_stages
from snn_probe.training import train
from snn_probe.unfinished import SUFFIX, files, result_of

KEEP = ("nothing", "probed", "all")


@dataclass(frozen=True)
class Where:
    """The study's folder, where its data lie, and what it is computed with. ``keep``: which checkpoints of a finished
    run stay, none, those of the probed epochs, or last, best and resume.pt too."""

    folder: Path
    data_root: Path | None = None
    device: str = "cpu"
    threads: int = 1
    keep: str = "probed"


@dataclass(frozen=True)
class Work:
    """What is missing of a task: results, and the run itself or a checkpoint that they need."""

    task: Task
    train: bool
    missing: tuple[Measurement, ...]


@dataclass(frozen=True)
class Step:
    """An epoch of a run, or a result, has been finished: the product's path, and how long it took."""

    path: str
    seconds: float


def outstanding(folder: Path, tasks: list[Task]) -> list[Work]:
    """What is still to be done, in the order of the tasks."""
    found = []
    for task in tasks:
        missing = tuple(one for one in task.measurements if not result_is_fresh(folder, one))
        run = RunFolder(below(folder, task.run.path))
        lost = any(not run.checkpoint("epoch", one.epoch).exists() for one in missing)
        work = Work(task, lost or not run_is_fresh(folder, task.run), missing)
        found += [work] if work.train or work.missing else []
    return found


def steps_of(work: Work) -> int:
    """How many steps :func:`perform` will take, of a run that has not begun."""
    return len(work.missing) + (work.task.run.config.epochs if work.train else 0)


def result_is_fresh(folder: Path, wanted: Measurement) -> bool:
    """Whether the stored result was made by what now is wanted."""
    try:
        document = read_json(below(folder, wanted.path))
        return document["source"]["made_from"] == wanted.made_from
    except (OSError, ValueError, KeyError, TypeError):
        return False


def run_is_fresh(folder: Path, run: Run) -> bool:
    """Whether the run was trained to its end with this configuration."""
    place = RunFolder(below(folder, run.path))
    return _same_config(place, run.config) and len(_metrics(place)) == run.config.epochs


def perform(work: Work, where: Where) -> Iterator[Step]:
    """Train and measure what is missing of one task."""
    torch.set_num_threads(where.threads)
    run = RunFolder(below(where.folder, work.task.run.path))
    if work.train:
        yield from _trained(work.task, run, where)
    held: tuple[int, Any] = (-1, None)
    for wanted in sorted(work.missing, key=lambda one: one.epoch):
        began = time.perf_counter()
        if held[0] != wanted.epoch:
            held = wanted.epoch, load(run.checkpoint("epoch", wanted.epoch))
        path = below(where.folder, wanted.path)
        save(measure(wanted, held[1], data_root=where.data_root, device=where.device, path=path), path)
        for file in files(path):
            file.unlink()
        yield Step(wanted.path, time.perf_counter() - began)
    tidy(work.task, where)


def _trained(task: Task, run: RunFolder, where: Where) -> Iterator[Step]:
    if run.path.exists() and not _continues(run, task):
        shutil.rmtree(run.path)
    place: dict[str, Any] = dict(device=where.device, data_root=where.data_root)
    for checkpoint in train(task.run.config, folder=run.path, resume=True, save_epochs=task.epochs, **place):
        yield Step(task.run.path, checkpoint.card["metrics"]["seconds"])


def _continues(run: RunFolder, task: Task) -> bool:
    """Whether a begun run is this one, and has kept every checkpoint that is needed of the epochs behind it."""
    if not _same_config(run, task.run.config):
        return False
    try:
        state = run.read_resume()
    except ValueError:
        return False
    done = 0 if state is None else state["plain"]["epoch"]
    if state is not None and state["plain"].get("config") != run.read_config():  # a state of another run
        return False
    return all(run.checkpoint("epoch", epoch).exists() for epoch in task.epochs if epoch <= done)


def tidy(task: Task, where: Where) -> None:
    """Remove the checkpoints that ``where.keep`` does not keep of a finished run."""
    if where.keep == "all":
        return
    run = RunFolder(below(where.folder, task.run.path))
    probed = {run.checkpoint("epoch", epoch) for epoch in task.epochs if where.keep == "probed"}
    for file in [run.resume, run.previous, *run.path.glob("checkpoints/*.pt")]:
        if file not in probed:
            file.unlink(missing_ok=True)


def sweep(folder: Path, tasks: list[Task]) -> list[str]:
    """Remove from runs/ and results/, which are the study's own, what does not belong to its plan or is stale, and
    the beginnings of files that a killed process left; the paths of the products removed."""
    wanted, removed = products(tasks), []
    remove_leftovers(folder, below=True)
    for path in sorted(folder.glob("results/*/*.json")):
        name = path.relative_to(folder).as_posix()
        one = wanted.get(name)
        if not isinstance(one, Measurement) or not result_is_fresh(folder, one):
            path.unlink()
            removed.append(name)
    for path in folder.glob(f"results/*/*{SUFFIX}"):
        if result_of(path).exists() or result_of(path).relative_to(folder).as_posix() not in wanted:
            path.unlink()
    for path in sorted(folder.glob("runs/*")):
        name = path.relative_to(folder).as_posix()
        one = wanted.get(name)
        if path.is_dir() and (not isinstance(one, Run) or not _same_config(RunFolder(path), one.config)):
            shutil.rmtree(path)
            removed.append(name)
    for path in folder.glob("results/*"):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    return removed


def seconds_of_run(folder: Path, run: Run) -> float | None:
    """How long a finished run took to train; None for an unfinished one."""
    rows = _metrics(RunFolder(below(folder, run.path)))
    return float(rows["seconds"].sum()) if len(rows) == run.config.epochs else None


def metrics_of_run(folder: Path, run: Run) -> pd.DataFrame:
    """The run's metrics.csv with the columns that tell the run, as :func:`snn_probe.results.combine` names them."""
    config, rows = run.config, _metrics(RunFolder(below(folder, run.path)))
    known = {"run": run.name, "method": config.method, "dataset": config.dataset, "model": config.model,
             "seed": config.seed, "arm": run.arm, "group": run.group}  # fmt: skip
    return rows.assign(**known, num_steps=[config.stage_at(epoch).num_steps for epoch in rows["epoch"]])


def _same_config(run: RunFolder, config: RunConfig) -> bool:
    try:
        stored = RunConfig.from_dict(run.read_config())
        return stored == _completed(config, stored)
    except ValueError:
        return False


def _completed(config: RunConfig, stored: RunConfig) -> RunConfig:
    """``config`` with what training has filled in: classes that are folders, and the hyperparameters at their defaults
    of objectives of the user's own; where these may not be imported, for a report say, as they are stored."""
    if config.classes is None:
        config = replace(config, classes=stored.classes)
    methods = {stage.method for stage in config.schedule() if is_own(stage.method)}
    if methods <= set(allowed()):
        return resolved(config) if methods else config
    stages = [
        replace(stage, hyperparameters={**there.hyperparameters, **stage.hyperparameters})
        if is_own(stage.method) and stage.method == there.method
        else stage
        for stage, there in zip(config.schedule(), stored.schedule(), strict=True)
    ]
    return with_stages(config, stages)


def _metrics(run: RunFolder) -> pd.DataFrame:
    none = pd.DataFrame({"epoch": [], "seconds": []})
    try:
        rows = pd.read_csv(StringIO(read_text(run.metrics)), dtype=str).astype(float)  # exact in any pandas
        whole = list(rows["epoch"]) == list(range(1, len(rows) + 1)) and np.isfinite(rows["seconds"]).all()
    except (OSError, ValueError, KeyError):
        return none
    return rows.astype({"epoch": int}) if whole else none
