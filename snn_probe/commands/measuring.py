"""From checkpoint paths to results, figures and printed lines: what every probe command does."""

import itertools
import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch

from snn_probe.checkpoint import Checkpoint
from snn_probe.costs.dry_run import dry_run
from snn_probe.data import batches
from snn_probe.distributed import dealing, leads, own_device, processes, together
from snn_probe.evaluation import fires
from snn_probe.figures import draw, figure_bytes, figure_names, figure_options
from snn_probe.machine.files import write_if_new
from snn_probe.machine.memory import halving
from snn_probe.machine.progress import Progress, Remaining
from snn_probe.measurement import Job, Measurement, Reader, prepared, reading_once
from snn_probe.results import Result, load, save, strict_json
from snn_probe.runs.run_folder import described
from snn_probe.subjects import Subject, stage_of
from snn_probe.system import load_split
from snn_probe.tables.exports import csv
from snn_probe.tables.shards import Shard, shard_path
from snn_probe.tables.slices import table_of

_FIRST = 16  # examples in which a network is expected to fire
_FOLLOWS = re.compile("sha256$|^direction_")  # settings that follow from others

_log = logging.getLogger(__name__)


def run(
    measurements: list[Measurement],
    subjects: tuple[Subject, ...],
    *,
    split: str,
    num_examples: int | None,
    batch_size: int,
    out: Path | None,
    no_figure: bool,
    as_json: bool,
    data_root: Path | None,
    device: str,
    planned_devices: int | None = None,
    shard: Shard | None = None,
) -> list[Result]:
    """Measure each subject, save each result, print lines of it, and draw those of a probe in one figure. With
    ``planned_devices`` nothing of this: print what it would cost on so many.

    Under torchrun the processes share the work, from here to the end of the command; the first alone writes and prints.
    Of a ``shard`` the results are parts: they are saved as such, and nothing is made of all together.
    """
    common: dict[str, Any] = dict(
        split=split, num_examples=num_examples, batch_size=batch_size, data_root=data_root, device=device
    )
    if planned_devices is not None:
        for line in dry_run(measurements, subjects, devices=planned_devices, **common):
            click.echo(line)
        return []
    click.get_current_context().with_resource(_shared_work(device))
    out = out or default_out(subjects)
    written: list[Path] = []
    found: dict[str, list[Result]] = {}
    common["read"] = reading_once()
    for wanted in measurements:
        pairs = list(zip(subjects, labels(subjects), strict=True))
        for subject, label in Remaining(pairs, f"{wanted.name} of all checkpoints") if len(pairs) > 1 else pairs:
            path = out / f"{wanted.name}_{label}.json"
            written.append(path if shard is None else shard_path(path, shard))
            result = _measured(wanted, subject, written[-1], **common)
            found.setdefault(wanted.together or wanted.name, []).append(result)
            if not as_json:
                say(subject.file, result, wanted.lines(result))
    with together():
        if leads():
            finish({} if shard else found, written, out, no_figure=no_figure, as_json=as_json)
    return [result for results in found.values() for result in results]


@contextmanager
def _shared_work(device: str) -> Iterator[None]:
    """Among the processes that torchrun started, if it did; all but the first are silent."""
    with processes(own_device(device)), dealing():
        if leads():
            yield
            return
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            yield


def say(file: Path, result: Result, lines: list[str]) -> None:
    """Print what was measured, and these lines of its result."""
    source = result.source
    settings = result.settings
    said_of = f"{source['run']}, epoch {source['epoch']}" if "epoch" in source else source["config"]["model"]
    on = f", on {settings['num_examples']} examples of the {settings['split']} split"
    if frozen := settings.get("frozen_parameters"):
        lines = [*lines, f"  frozen, and so left out: {', '.join(frozen[:3])}{', ...' * (len(frozen) > 3)}"]
    click.echo("\n".join([f"{file}  ({said_of}{on})", *lines]))


def finish(found: dict[str, list[Result]], written: list[Path], out: Path, *, no_figure: bool, as_json: bool) -> None:
    """The tables and figures of several results together; then say what was written."""
    others: list[Path] = []
    for name, results in found.items():
        if len(results) > 1:
            others.append(out / f"{name}.csv")
            write_if_new(others[-1], csv(results))
        if not no_figure:
            others += figures(results, out, ("png", "pdf"))
    if as_json:
        texts = [path.read_text(encoding="utf-8") for path in written]
        click.echo(texts[0] if len(texts) == 1 else json.dumps([json.loads(text) for text in texts]))
    for path in written + others:
        click.echo(path, err=as_json)


def _measured(
    wanted: Measurement,
    subject: Subject,
    written: Path,
    *,
    split: str,
    num_examples: int | None,
    batch_size: int,
    data_root: Path | None,
    device: str,
    read: Reader = load_split,
) -> Result:
    """The saved result of one measurement of one checkpoint, always in full precision."""
    checkpoint, data, count, model = prepared(subject, split, num_examples, data_root, device, read)
    what = f"{wanted.name} {subject.file.stem}"

    def measured(at_once: int) -> Result:
        return wanted.measure(Job(subject.file, checkpoint, model, Progress(batches(data, at_once), what), written))

    if not fires(model, data.take(torch.arange(min(_FIRST, count)))[0]):
        _log.warning("%s", f"No spiking layer of {subject.file} fires in the first {min(_FIRST, count)} examples.")
    result = stamped(halving(measured, min(batch_size, count), what), subject.file, checkpoint, split, count)
    with together():
        if leads():
            _warn_of_replaced(written, result)
            save(result, written)
    return result


def _warn_of_replaced(written: Path, result: Result) -> None:
    """A warning where this result takes the place of one that was measured with other settings, or on another run."""
    if not written.exists():
        return
    try:
        stored = load(written)
    except ValueError:
        return
    old, new = ({**one.settings, "run": one.source.get("run")} for one in (stored, result))
    new = json.loads(strict_json(new))
    changed = {key: (old.get(key), new.get(key)) for key in {**old, **new} if old.get(key) != new.get(key)}
    if chosen := {key: values for key, values in changed.items() if not _FOLLOWS.search(key)}:
        changed = chosen
    if changed:
        _log.warning("%s", f"The result in {written} was measured with other settings ({described(changed)}) and is "
                     "replaced; give another folder with --out to keep both.")  # fmt: skip


def stamped(result: Result, file: Path, checkpoint: Checkpoint, split: str, num_examples: int) -> Result:
    """The result with what is known of the checkpoint and of the examples that it was measured on."""
    settings = {**result.settings, "split": split, "num_examples": num_examples}
    return replace(
        result,
        settings=settings,
        source={**checkpoint.card, "file": file.name, "stage": stage_of(checkpoint)},
    )


def default_out(subjects: tuple[Subject, ...]) -> Path:
    """reports/<run> for subjects of one run; reports/<run>+<n> where there are n other runs."""
    runs = list(dict.fromkeys(subject.run for subject in subjects))
    return Path("reports") / (runs[0] if len(runs) == 1 else f"{runs[0]}+{len(runs) - 1}")


def labels(subjects: tuple[Subject, ...]) -> list[str]:
    """A name for each result: the file's, after the run's where there are several, with a number if still taken."""
    several = len({subject.run for subject in subjects}) > 1
    found: list[str] = []
    for subject in subjects:
        stem = subject.file.name.removesuffix(".tar").rpartition(".")[0] or subject.file.name
        first = f"{subject.run}_{stem}" if several and subject.run != stem else stem
        names = (first if number == 1 else f"{first}_{number}" for number in itertools.count(1))
        found.append(next(name for name in names if name not in found))
    return found


def figures(results: list[Result], folder: Path, formats: tuple[str, ...]) -> list[Path]:
    """Every figure that the results allow, in each format."""
    table, written = table_of(results), []
    for name in figure_names(results[0].probe, table):
        figure = draw(name, table, **figure_options(name, results))
        for suffix in formats:
            written.append(folder / f"{name}.{suffix}")
            write_if_new(written[-1], figure_bytes(figure, suffix))
    return written
