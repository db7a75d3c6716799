"""``snnprobe landscape``: slices of the loss along random directions, eigenvectors, a line or the plane of a run."""

import functools
import logging
import math
import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from snn_probe.commands.probe_options import OBJECTIVES, ObjectiveName, objective_of, shared
from snn_probe.commands.slice_lines import LEVEL, RADIUS, lines, report_flatness

KINDS = ("random", "eigenvectors", "pca")

_log = logging.getLogger(__name__)


def _shard(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """The shard that --shard names, as (i, n)."""
    if value is None:
        return None
    from snn_probe.tables.shards import shard_of

    try:
        return shard_of(value, os.environ)
    except ValueError as error:
        raise click.UsageError(f"--shard: {error}") from None


@click.command()
@shared
@click.option("--objective", "objectives", multiple=True, default=("sdt", "tet"), show_default=True,
              type=ObjectiveName(*OBJECTIVES), help="Losses, all from the same forward passes; may be repeated.")  # fmt: skip
@click.option("--plane", is_flag=True, help="Two directions instead of one.")
@click.option("--points", default=21, show_default=True, type=click.IntRange(min=2),
              help="Along each direction; an odd number has 0 among them.")  # fmt: skip
@click.option("--range", "reach", type=click.FloatRange(min=0, min_open=True),
              help="The grid covers [-range, range].  [1; with --to from 0 to 1; with pca what the run covers]")  # fmt: skip
@click.option("--along", default="random", show_default=True, type=click.Choice(KINDS),
              help="random: filter-normalized. eigenvectors: of the Hessian of the first objective, unit length. "
                   "pca: the plane of the run, from the epoch_*.pt beside CKPT, with its trajectory.")  # fmt: skip
@click.option("--to", "other", type=click.Path(path_type=Path),
              help="Along the line to this checkpoint (1 is it, with its batch-norm statistics).")  # fmt: skip
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Of the random directions.")
@click.option("--num-directions", default=1, show_default=True, type=click.IntRange(min=1),
              help="Random slices per checkpoint, of the seeds from --seed on, for the spread of flatness.")  # fmt: skip
@click.option("--shard", metavar="I/N", callback=_shard,
              help="Measure the I-th of N parts of the grid alone, without figures; snnprobe merge joins them. slurm: the "
                   "part of this task of a SLURM job array.")  # fmt: skip
@LEVEL
@RADIUS
def landscape(
    subjects: tuple[Any, ...], objectives, plane, points, reach, along, other, seed, num_directions, shard, level, radius,
    **options: Any,
) -> None:  # fmt: skip
    """Loss and accuracy along a line or on a plane through the weights; a half-finished grid is continued."""
    from snn_probe.commands.measuring import Measurement, default_out, run
    from snn_probe.costs.landscape_efforts import landscape_efforts

    _check_directions(subjects, plane, along, other, num_directions)
    if radius is not None and radius > (reach or 1.0) and (along != "pca" or reach):
        raise click.UsageError(f"--radius is {radius:g}, but the grid reaches {reach or 1.0:g}; give at most that.")
    if shard and (radius is not None or _given("level")):
        raise click.UsageError("Flatness needs the whole grid; give --level and --radius to snnprobe merge.")
    options["out"] = options["out"] or default_out(subjects)
    partials: list[Path] = []

    def measure(job, seed):
        partials.append(job.path.with_suffix(".partial.json"))
        way = _way(job, along, other, plane or along == "pca", objectives[0], seed)
        axes = way.axes(points, reach, plane or along == "pca")
        return _slice(job, partials[-1], objectives, way, axes, seed, split=options["split"], shard=shard)

    efforts = landscape_efforts(
        lambda job: {name: objective_of(name, job) for name in objectives},
        None if along == "eigenvectors" else lambda job: _way(job, along, other, plane, objectives[0], seed).directions,
        points=_points(points, plane or along == "pca", shard),
        plane=plane or along == "pca",
    )
    wanted = []
    for chosen in range(seed, seed + num_directions):
        name = "landscape" if num_directions == 1 else f"landscape_seed{chosen}"
        wanted.append(Measurement(name, functools.partial(measure, seed=chosen), lines, "landscape", efforts))
    results = run(wanted, subjects, shard=shard, **options)
    if not results:
        return  # a dry run
    if shard:
        said = f"When parts 1 to {shard[1]} are all done: snnprobe merge {options['out']}"
        click.echo(said, err=options["as_json"])
    else:
        report_flatness(results, level, radius, options["out"] / "flatness.csv", quiet=options["as_json"])
    for path in partials:  # the results are saved whole by now
        path.unlink(missing_ok=True)


def _points(along_each: int, plane: bool, shard: tuple[int, int] | None) -> int:
    """How many points the grid has, or this shard of it."""
    count = along_each**2 if plane else along_each
    return count if shard is None else math.ceil(count / shard[1])


def _given(option: str) -> bool:
    return click.get_current_context().get_parameter_source(option) is ParameterSource.COMMANDLINE


def _check_directions(subjects, plane: bool, along: str, other: Path | None, num_directions: int) -> None:
    if plane and other:
        raise click.UsageError("--plane and --to exclude each other; a line to a checkpoint has one direction.")
    if other and along != "random":
        raise click.UsageError(f"--to and --along {along} exclude each other; give one of them.")
    if num_directions > 1 and (other or along != "random"):
        raise click.UsageError("--num-directions counts random slices; leave out --to and --along.")
    if along == "pca" and len(subjects) > 1:
        raise click.UsageError("--along pca takes one checkpoint, since every run has a plane of its own.")
    if along == "pca":  # before the network is built; which epochs they are is seen then
        _check_epochs(subjects[0].file, set(_kept_epochs(subjects[0].file)) - {subjects[0].file.resolve()})


def _kept_epochs(file: Path) -> list[Path]:
    """The epoch_*.pt beside a checkpoint."""
    return sorted(file.resolve().parent.glob("epoch_*.pt"))


def _check_epochs(file: Path, before: Collection[Any]) -> None:
    if len(before) < 2:
        raise ValueError(
            f"{file.resolve().parent} has {len(before)} epoch_*.pt from before {file.name}, and the plane of a run needs "
            "at least 2; train with --save-epochs 1,5,10,..."
        )


@dataclass(frozen=True)
class _Way:
    """Directions of a slice (None: random), what to call them, and the projected run they come from."""

    directions: Any = None
    said: str | None = None
    trajectory: Any = None
    explained: tuple[float, float] | None = None
    one_sided: bool = False

    def axes(self, points: int, reach: float | None, plane: bool) -> tuple[list[float], list[float]]:
        """alphas and betas: [-reach, reach]; without a reach [0, 1] on the line to another checkpoint, and what covers
        a trajectory, 0 among them."""
        import numpy as np

        if self.one_sided and reach is None:
            return np.linspace(0.0, 1.0, points).tolist(), [0.0]
        if self.trajectory is None or reach is not None:
            axis = np.linspace(-(reach or 1.0), reach or 1.0, points).tolist()
            return axis, axis if plane else [0.0]
        return _covering(self.trajectory["alpha"], points), _covering(self.trajectory["beta"], points)

    def settings(self) -> dict[str, Any]:
        found: dict[str, Any] = {"directions": self.said} if self.said else {}
        if self.trajectory is not None:
            found |= {"trajectory": self.trajectory.to_dict("list"), "explained": list(self.explained or ())}
        return found


def _covering(values: Any, points: int, margin: float = 0.2) -> list[float]:
    """So many equidistant coordinates, 0 among them, that cover the values with a margin on either side."""
    low, high = min(0.0, *values), max(0.0, *values)
    around = margin * (high - low)
    low, high = low - around, high + around
    if points < 3:
        return [low, high]
    step = (high - low) / (points - 2)
    below = math.ceil(-low / step)
    return [(i - below) * step for i in range(points)]


def _way(job: Any, along: str, other: Path | None, plane: bool, objective: str, seed: int) -> _Way:
    if other is not None:
        return _line(job, other)
    if along == "pca":
        return _plane_of_run(job)
    if along == "random":
        return _Way()
    from snn_probe.probes.hessian import hessian_eigenvectors

    count = 2 if plane else 1
    loss = objective_of(objective, job)
    found, vectors = hessian_eigenvectors(job.model, job.batches, loss, k=count, seed=seed)
    if not found.table["converged"].all():
        click.echo("Warning: an eigenvector has not converged; its direction is approximate.", err=True)
    values = ", ".join(f"{value:.4g}" for value in found.table["eigenvalue"])
    return _Way(vectors, f"top eigenvectors of the Hessian ({objective}, spiking forward; {values})")


def _line(job: Any, other: Path) -> _Way:
    """To another checkpoint of the same network: trainable weights and batch-norm statistics."""
    from snn_probe.probes.directions import direction_between
    from snn_probe.subjects import state_of

    try:
        way = direction_between(job.model.state_dict(), state_of(other, job.checkpoint, job.model))
    except ValueError as error:
        raise ValueError(f"--to {other}: {error}") from None
    return _Way(way, f"line to {_called(other, job.checkpoint)}", one_sided=True)


def _called(other: Path, beside: Any) -> str:
    """A checkpoint by its run, epoch and weights; a file of weights by its name."""
    from snn_probe.checkpoint import load
    from snn_probe.subjects import trained_here

    if not trained_here(beside):
        return other.name
    card = load(other).card
    return f"{other.name} of {card['run']}, epoch {card['epoch']} (weights {card['sha256'][:8]})"


def _plane_of_run(job: Any) -> _Way:
    """The plane of the run's kept epochs up to this checkpoint, which lies at (0, 0)."""
    from snn_probe.checkpoint import load
    from snn_probe.parameters import trainable
    from snn_probe.probes.directions import pca_plane

    found = {c.epoch: c for c in map(load, _kept_epochs(job.file)) if c.epoch < job.checkpoint.epoch}
    _check_epochs(job.file, found)
    run = [found[epoch] for epoch in sorted(found)] + [job.checkpoint]
    names = list(trainable(job.model))
    plane = pca_plane([{name: c.state_dict[name] for name in names} for c in run])
    trajectory = plane.coordinates.assign(epoch=[c.epoch for c in run])
    return _Way(plane.directions, f"first two principal components of {len(run)} epochs", trajectory, plane.explained)


def _slice(
    job: Any, partial: Path, objectives: tuple[str, ...], way: _Way, axes, seed: int, *, split: str, shard
) -> Any:
    """The slice; its points are kept in ``partial`` as they come, and those found there of equal settings not redone.
    Nor are, of a shard, those that are found in what shards have written to the same folder."""
    from snn_probe.commands.measuring import stamped
    from snn_probe.machine.progress import Progress
    from snn_probe.probes import loss_slice
    from snn_probe.results import save
    from snn_probe.unfinished import or_anew

    def with_way(result):
        return replace(result, settings={**result.settings, **way.settings()})

    def keep(result):
        count = result.settings["num_examples"]
        save(stamped(with_way(result), job.file, job.checkpoint, split, count), partial)

    def measured(known):
        losses = {name: objective_of(name, job) for name in objectives}
        grid = dict(alphas=axes[0], betas=axes[1], seed=seed, directions=way.directions)
        return loss_slice(
            job.model, job.batches.iterable, losses, save=keep, progress=Progress, resume=known,
            shard=shard, elsewhere=elsewhere, **grid,
        )  # fmt: skip

    known, elsewhere = _found_before(job.path, partial, shard)
    return with_way(or_anew(measured, known))


def _found_before(path: Path, partial: Path, shard: tuple[int, int] | None) -> tuple[Any, dict[str, Any]]:
    """What is stored of this slice, or of this shard of it; and of other shards, by their files."""
    from snn_probe.tables.shards import shard_files

    if shard is None:
        return _stored([partial])[1], {}
    name = path.name.rpartition(".shard-")[0]
    files = shard_files(path.parent).get(name, {})
    known = _stored(files.pop(shard, []))[1]
    return known, {file: found for file, found in map(_stored, files.values()) if found is not None}


def _stored(files: Iterable[Path]) -> tuple[str, Any]:
    """The fullest of some files of one shard, with its name; None for the result where none can be read."""
    from snn_probe.tables.shards import fullest

    try:
        return fullest(files) or ("", None)
    except ValueError as error:
        _log.warning("%s", f"{error}; its points are measured again.")
        return "", None
