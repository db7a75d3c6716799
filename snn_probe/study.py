"""A study: a recipe becomes runs, results, tables, figures, claims and a report in one folder.

    recipe.toml  study.json  runs/<arm>-<size>-seed<k>/  results/<probe>/<run>-epoch0005.json
    claims.csv  claims.json  figures/  report.html  report.md       written by :mod:`snn_probe.studies.conclusion`

Interrupted, it continues; a changed recipe redoes what depends on the change. The same recipe on the same machine gives
the same results, claims and tables bit for bit, whatever was interrupted and however many processes there were. What
differs are seconds and dates: they are in study.json, in the column ``seconds`` of runs/*/metrics.csv and in the cards
of checkpoints, and nowhere in results/. Of several CUDA devices, cards and results name the one that it was.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from snn_probe import own
from snn_probe.distributed import in_turn
from snn_probe.machine.files import check_room, read_json, read_text, write_atomically
from snn_probe.machine.folder_lock import locked
from snn_probe.machine.progress import Progress
from snn_probe.results import combine, environment, load
from snn_probe.studies.conclusion import conclude
from snn_probe.studies.estimate import Cost, estimate, lines
from snn_probe.studies.plan import Measurement, Run, Task, below, in_table_order, plan, products
from snn_probe.studies.products import (
    Step,
    Where,
    Work,
    metrics_of_run,
    outstanding,
    perform,
    result_is_fresh,
    run_is_fresh,
    seconds_of_run,
    steps_of,
    sweep,
    tidy,
)  # fmt: skip
from snn_probe.studies.recipe import Recipe, parse_recipe
from snn_probe.studies.workers import Held, portable, spread
from snn_probe.system import network_of, resolved

FORMAT = "snn_probe.study/1"
RECIPE, RECORD = "recipe.toml", "study.json"
_SECONDS_BETWEEN_RECORDS = 10.0
_IGNORED = "# Checkpoints are for continuing and for further probes; figures and the report need none.\n*.pt\n.lock\n"

_log = logging.getLogger(__name__)


def preview(recipe: Recipe, where: Where, *, jobs: int = 1, devices: int = 1) -> list[str]:
    """What there is to do, and about what it takes in passes, time, memory and disk with ``jobs`` processes on each of
    ``devices``, in lines; nothing is written."""
    tasks = plan(recipe)
    _check_runs(recipe, tasks, where)
    works = outstanding(where.folder, tasks)
    parts = _parts(works, _seconds(where.folder, tasks), where)
    return _preview(recipe, tasks, parts, where, jobs, devices)


def run_study(recipe: Recipe, name: str, where: Where, *, jobs: int = 1, **figures: Any) -> None:
    """Do all that is missing of the study ``name`` in ``where.folder``, in ``jobs`` processes; the plan is logged.
    ``figures``: width and formats, as :func:`snn_probe.studies.conclusion.conclude` takes them.

    Raises ValueError for a folder that holds something else and for data that are missing, RuntimeError where another
    process is at work there or a run diverges, OSError when a file cannot be written. What was made before stays.
    """
    if not isinstance(jobs, int) or jobs < 1:
        raise ValueError(f"jobs is {jobs!r}; give a whole number of processes of at least 1.")
    _check_folder(where.folder, name)
    tasks = plan(recipe)
    _check_runs(recipe, tasks, where)
    with locked(where.folder) as descriptor:
        removed = sweep(where.folder, tasks)
        works = outstanding(where.folder, tasks)
        seconds = _seconds(where.folder, tasks)
        parts = _parts(works, seconds, where)
        check_room(where.folder, int(sum(cost.bytes for costs in parts.values() for cost in costs)), "The study")
        write_atomically(where.folder / RECIPE, recipe.text)
        write_atomically(where.folder / ".gitignore", _IGNORED)
        record = partial(_record, recipe, name, tasks, where, jobs)
        record(seconds, complete=False)
        if removed:
            _log.info("%s", f"Removed {len(removed)} products that no longer belong to the recipe, {removed[0]} first.")
        _log.info("%s", "\n".join(_preview(recipe, tasks, parts, where, jobs)))
        try:
            said = time.monotonic()
            for step in Progress(_steps(works, where, jobs, descriptor), name, total=sum(map(steps_of, works))):
                seconds[step.path] = step.seconds
                if time.monotonic() - said > _SECONDS_BETWEEN_RECORDS:
                    record(seconds, complete=False)
                    said = time.monotonic()
        finally:
            record(seconds, complete=False)
        for task in tasks:
            tidy(task, where)
        record(seconds, complete=True)
        conclude(tables(where.folder), where.folder, **figures)


def tables(folder: str | Path) -> dict[str, pd.DataFrame]:
    """All numbers of a finished study: a table per probe of its recipe, by the probe's name, and "metrics".

    Each is ``combine(results)`` with the columns ``arm`` (its name in the recipe) and ``group`` ("150 examples", or ""
    where the recipe has one size of training set). "metrics" has all rows of all runs' metrics.csv with the same
    identifying columns, num_steps being that of the epoch's stage. Raises ValueError where a product is missing.
    """
    folder = Path(folder)
    recipe = _stored_recipe(folder)
    tasks = in_table_order(recipe, plan(recipe))
    for path, product in products(tasks).items():
        if not (
            result_is_fresh(folder, product) if isinstance(product, Measurement) else run_is_fresh(folder, product)
        ):
            raise ValueError(f"{below(folder, path)} is missing or stale; finish the study with snnprobe reproduce.")
    found = {"metrics": pd.concat([metrics_of_run(folder, task.run) for task in tasks], ignore_index=True)}
    for probe in recipe.probes:
        results = []
        for one in (one for task in tasks for one in task.measurements if one.probe == probe):
            result = load(below(folder, one.path))
            result.table.insert(0, "arm", one.run.arm)
            result.table.insert(1, "group", one.run.group)
            results.append(result)
        found[probe.name] = combine(results)
    return found


def _stored_recipe(folder: Path) -> Recipe:
    try:
        text = read_text(folder / RECIPE)
    except OSError as error:
        raise ValueError(
            f"{folder} holds no study ({RECIPE}: {error.strerror}); give a folder of snnprobe reproduce."
        ) from None
    except ValueError:
        raise ValueError(f"{folder / RECIPE} is no UTF-8 text; restore it.") from None
    try:
        return parse_recipe(text)
    except ValueError as error:
        raise ValueError(f"{folder / RECIPE}: {error}") from None


def _steps(works: list[Work], where: Where, jobs: int, lock: int) -> Iterator[Step]:
    """All work, in this process where one is enough; of several CUDA devices each process takes one in turn."""
    if jobs == 1:
        for work in works:
            yield from perform(work, where)
    else:
        code = _portable_code()
        performs = [partial(_perform, where=replace(where, device=one), code=code) for one in in_turn(where.device)]
        yield from spread(performs, works, jobs=jobs, held=Held(lock))


def _portable_code() -> dict[str, Any]:
    """The code of the user's own that is allowed here, for other processes; ValueError for what cannot go there."""
    for name, meant in own.allowed().items():
        if not portable(meant):
            raise ValueError(
                f"{name} stands for {type(meant).__name__}, which other processes cannot be given; give jobs=1, or allow "
                "a name that can be imported."
            )
    return own.allowed()


def _perform(work: Work, where: Where, code: dict[str, Any]) -> Iterator[Step]:
    """:func:`perform` in a process of its own, with this code of the user's allowed."""
    for name, meant in code.items():
        own.allow(name, meant)
    yield from perform(work, where)


def _parts(works: list[Work], seconds: dict[str, float], where: Where) -> dict[str, list[Cost]]:
    return estimate(works, {path: s for path, s in seconds.items() if s is not None}, where)


def _preview(
    recipe: Recipe, tasks, parts: dict[str, list[Cost]], where: Where, jobs: int, devices: int = 1
) -> list[str]:
    sizes = f" x {len(recipe.sizes)} sizes of training set" * (len(recipe.sizes) > 1)
    said = [
        recipe.title,
        f"{len(tasks)} runs ({len(recipe.arms)} arms{sizes} x {len(recipe.seeds)} seed{'s' * (len(recipe.seeds) != 1)}), "
        f"{sum(len(task.measurements) for task in tasks)} results, in {where.folder}",
    ]
    if not parts:
        return [*said, "Nothing is missing of the runs and results."]
    return [*said, "To do:", *lines(parts, jobs, devices)]


def _check_folder(folder: Path, name: str) -> None:
    """ValueError unless the folder is new, empty, or holds this study."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; choose another folder with --out.")
    if not folder.is_dir() or (folder / RECORD).exists():
        stored = _read_record(folder).get("name", name)
        if stored != name:
            raise ValueError(f"{folder} holds the study {stored!r}, not {name!r}; choose another folder with --out.")
        return
    begun = (".lock", ".gitignore", RECIPE)  # a study that was killed before its record was written has no more
    if any(path.name not in begun and not path.name.startswith(".snn_probe-") for path in folder.iterdir()):
        raise ValueError(f"{folder} holds files but no study ({RECORD}); choose another folder with --out.")


def _check_runs(recipe: Recipe, tasks: list[Task], where: Where) -> None:
    """Whatever stands against any run, before the first one begins."""
    for name, option in recipe.own_code().items():
        own.check_allowed(name, option)
    torch.set_num_threads(where.threads)
    for arm in {task.run.arm: task for task in tasks}.values():
        network_of(resolved(arm.run.config, where.data_root), where.data_root)


def _read_record(folder: Path) -> dict[str, Any]:
    try:
        found = read_json(folder / RECORD)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _seconds(folder: Path, tasks: list[Task]) -> dict[str, float]:
    """Seconds of every finished product that are known: of runs from their metrics, of results from study.json."""
    stored = _read_record(folder).get("products")
    stored = stored if isinstance(stored, dict) else {}
    found: dict[str, float] = {}
    for path, product in products(tasks).items():
        kept = stored.get(path)
        kept = kept if isinstance(kept, dict) else {}
        seconds = kept.get("seconds") if kept.get("made_from") == product.made_from else None
        seconds = seconds if isinstance(seconds, int | float) and 0 <= seconds < 1e9 else None
        seconds = seconds_of_run(folder, product) if isinstance(product, Run) else seconds
        found |= {path: seconds} if seconds is not None else {}
    return found


def _record(recipe: Recipe, name: str, tasks: list[Task], where: Where, jobs: int, seconds, *, complete: bool) -> None:
    """study.json: what was run. ``seconds`` is null where a killed process took the time with it."""
    runs = {task.run.arm: task.run.config.to_dict() for task in reversed(tasks)}
    known = {**seconds, **{task.run.path: seconds_of_run(where.folder, task.run) for task in tasks}}
    document = {
        "format": FORMAT,
        "name": name,
        "title": recipe.title,
        "complete": complete,
        "recipe_sha256": recipe.sha256(),
        "arms": {arm: runs[arm] for arm in recipe.arms},
        "groups": [recipe.group(size) for size in recipe.sizes],
        "seeds": list(recipe.seeds),
        "probes": {probe.name: asdict(probe) for probe in recipe.probes},
        "warnings": recipe.warnings(),
        "environment": environment(device=where.device, threads=where.threads, processes=jobs),
        "products": {
            path: {"made_from": product.made_from, "seconds": known.get(path)}
            for path, product in products(tasks).items()
        },
    }
    write_atomically(where.folder / RECORD, json.dumps(document, indent=1) + "\n")
