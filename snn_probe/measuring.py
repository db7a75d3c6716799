"""From checkpoint paths to results, figures and printed lines: what every probe command does."""

import itertools
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from snn_probe.checkpoint import Checkpoint, build_model
from snn_probe.data import batches
from snn_probe.distributed import dealing, leads, own_device, processes, together
from snn_probe.files import write_atomically
from snn_probe.gallery import draw, figure_bytes, figure_names, figure_options
from snn_probe.memory import halving
from snn_probe.own import is_own
from snn_probe.own_network import check_own_network
from snn_probe.progress import Progress
from snn_probe.results import Result, save
from snn_probe.slices import table_of
from snn_probe.subjects import Subject, stage_of
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


@dataclass(frozen=True)
class Measurement:
    """A probe to run on each checkpoint: the name of its files, the call, what to print of a result, and the name of
    the table and figures that it shares with others (None: its own)."""

    name: str
    measure: Callable[[Job], Result]
    lines: Callable[[Result], list[str]]
    together: str | None = None


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
) -> list[Result]:
    """Measure each subject, save each result, print lines of it, and draw those of a probe in one figure.

    Under torchrun the processes share the work, from here to the end of the command; the first alone writes and prints.
    """
    click.get_current_context().with_resource(_shared_work(device))
    out = out or default_out(subjects)
    written: list[Path] = []
    found: dict[str, list[Result]] = {}
    for wanted in measurements:
        for subject, label in zip(subjects, labels(subjects), strict=True):
            written.append(out / f"{wanted.name}_{label}.json")
            result = _measured(wanted, subject, written[-1], split, num_examples, batch_size, data_root, device)
            found.setdefault(wanted.together or wanted.name, []).append(result)
            if not as_json:
                source, said = result.source, wanted.lines(result)
                said_of = (
                    f"{source['run']}, epoch {source['epoch']}" if "epoch" in source else source["config"]["model"]
                )
                click.echo("\n".join([f"{subject.file}  ({said_of})", *said]))
    with together():
        if leads():
            _finish(found, written, out, no_figure=no_figure, as_json=as_json)
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


def _finish(found: dict[str, list[Result]], written: list[Path], out: Path, *, no_figure: bool, as_json: bool) -> None:
    """The tables and figures of several results together; then say what was written."""
    others: list[Path] = []
    for name, results in found.items():
        if len(results) > 1:
            others.append(out / f"{name}.csv")
            write_atomically(others[-1], table_of(results).to_csv(index=False))
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
    split: str,
    num_examples: int | None,
    batch_size: int,
    data_root: Path | None,
    device: str,
) -> Result:
    """The saved result of one measurement of one checkpoint, always in full precision."""
    checkpoint = subject.load()
    data, count = examples(checkpoint, split, num_examples, data_root)
    what = f"{wanted.name} {subject.file.stem}"
    model = build_model(checkpoint).to(own_device(device))
    if is_own(checkpoint.config.model):
        network = checkpoint.card["network"]
        check_own_network(checkpoint.config.model, model, data, checkpoint.stage.num_steps, network)

    def measured(at_once: int) -> Result:
        return wanted.measure(Job(subject.file, checkpoint, model, Progress(batches(data, at_once), what), written))

    found = halving(measured, min(batch_size, count), what)
    settings = {**found.settings, "split": split, "num_examples": count}
    source = {**checkpoint.card, "file": subject.file.name, "stage": stage_of(checkpoint)}
    result = replace(found, settings=settings, source=source)
    with together():
        if leads():
            save(result, written)
    return result


def examples(
    checkpoint: Checkpoint, split: str, num_examples: int | None, data_root: Path | None = None
) -> tuple[Any, int]:
    """The first ``num_examples`` of the split (512, or all if fewer); of train only what was trained on."""
    config = checkpoint.config
    common: dict[str, Any] = dict(stage=checkpoint.stage, data_root=data_root)
    data = load_split(config, split, **common)
    most = len(data) if split != "train" or config.train_examples is None else config.train_examples
    wanted = min(DEFAULT_EXAMPLES, most) if num_examples is None else num_examples
    if wanted > most:
        raise ValueError(
            f"--num-examples is {wanted}, but the {split} split of this run has {most} examples; give at most that."
        )
    return load_split(config, split, num_examples=wanted, **common), wanted


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
            write_atomically(written[-1], figure_bytes(figure, suffix))
    return written
