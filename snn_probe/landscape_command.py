"""``snnprobe landscape``: slices of the loss along random directions, eigenvectors, a line or the plane of a run."""

import functools
import itertools
import logging
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from snn_probe.probe_options import OBJECTIVES, ObjectiveName, objective_of, shared

KINDS = ("random", "eigenvectors", "pca")

_log = logging.getLogger(__name__)


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
@click.option("--level", default=0.1, show_default=True, type=click.FloatRange(min=0, min_open=True),
              help="Flatness: how far the loss stays below this above the network's own.")  # fmt: skip
@click.option("--radius", type=click.FloatRange(min=0, min_open=True),
              help="Flatness: mean rise of the loss at this distance.  [half of what the grid reaches]")  # fmt: skip
def landscape(
    subjects: tuple[Any, ...], objectives, plane, points, reach, along, other, seed, num_directions, level, radius,
    **options: Any,
) -> None:  # fmt: skip
    """Loss and accuracy along a line or on a plane through the weights; a half-finished grid is continued."""
    from snn_probe.measuring import Measurement, default_out, run

    _check_directions(subjects, plane, along, other, num_directions)
    if radius is not None and radius > (reach or 1.0) and (along != "pca" or reach):
        raise click.UsageError(f"--radius is {radius:g}, but the grid reaches {reach or 1.0:g}; give at most that.")
    options["out"] = options["out"] or default_out(subjects)
    partials: list[Path] = []

    def measure(job, seed):
        partials.append(job.path.with_suffix(".partial.json"))
        way = _way(job, along, other, plane or along == "pca", objectives[0], seed)
        return _slice(job, partials[-1], objectives, way, way.axes(points, reach, plane or along == "pca"), seed)

    wanted = []
    for chosen in range(seed, seed + num_directions):
        name = "landscape" if num_directions == 1 else f"landscape_seed{chosen}"
        wanted.append(Measurement(name, functools.partial(measure, seed=chosen), _lines, "landscape"))
    results = run(wanted, subjects, **options)
    _report_flatness(results, level, radius, options["out"] / "flatness.csv", quiet=options["as_json"])
    for path in partials:  # the results are saved whole by now
        path.unlink(missing_ok=True)


def _check_directions(subjects, plane: bool, along: str, other: Path | None, num_directions: int) -> None:
    if plane and other:
        raise click.UsageError("--plane and --to exclude each other; a line to a checkpoint has one direction.")
    if other and along != "random":
        raise click.UsageError(f"--to and --along {along} exclude each other; give one of them.")
    if num_directions > 1 and (other or along != "random"):
        raise click.UsageError("--num-directions counts random slices; leave out --to and --along.")
    if along == "pca" and len(subjects) > 1:
        raise click.UsageError("--along pca takes one checkpoint, since every run has a plane of its own.")


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
    return _Way(way, f"line to {other.name}", one_sided=True)


def _plane_of_run(job: Any) -> _Way:
    """The plane of the run's kept epochs up to this checkpoint, which lies at (0, 0)."""
    from snn_probe.checkpoint import load
    from snn_probe.parameters import trainable
    from snn_probe.probes.directions import pca_plane

    folder = job.file.resolve().parent
    found = {c.epoch: c for c in map(load, sorted(folder.glob("epoch_*.pt"))) if c.epoch < job.checkpoint.epoch}
    if len(found) < 2:
        raise ValueError(
            f"{folder} has {len(found)} epoch_*.pt from before {job.file.name}, and the plane of a run needs at least "
            "2; train with --save-epochs 1,5,10,..."
        )
    run = [found[epoch] for epoch in sorted(found)] + [job.checkpoint]
    names = list(trainable(job.model))
    plane = pca_plane([{name: c.state_dict[name] for name in names} for c in run])
    trajectory = plane.coordinates.assign(epoch=[c.epoch for c in run])
    return _Way(plane.directions, f"first two principal components of {len(run)} epochs", trajectory, plane.explained)


def _slice(job: Any, partial: Path, objectives: tuple[str, ...], way: _Way, axes, seed: int) -> Any:
    """The slice; its points are kept in ``partial`` as they come, and those found there of equal settings not redone."""
    from snn_probe.probes import loss_slice
    from snn_probe.progress import Progress
    from snn_probe.results import load, save

    def keep(result):
        save(replace(result, source=dict(job.checkpoint.card)), partial)

    def measured(known):
        losses = {name: objective_of(name, job) for name in objectives}
        grid = dict(alphas=axes[0], betas=axes[1], seed=seed, directions=way.directions)
        return loss_slice(
            job.model, job.batches.iterable, losses, save=keep, progress=Progress, resume=known, **grid
        )  # fmt: skip

    known = None
    if partial.exists():
        try:
            known = load(partial)
        except ValueError as error:
            _log.warning("%s", f"{error} Its points are measured again.")
    try:
        found = measured(known)
    except ValueError as error:
        if known is None or not str(error).startswith("resume was measured with other"):
            raise
        found = measured(None)
    return replace(found, settings={**found.settings, **way.settings()})


def _lines(result: Any) -> list[str]:
    lines = []
    for name, rows in result.table.groupby("objective", sort=False):
        here = rows[(rows["alpha"] == 0) & (rows["beta"] == 0)]
        centre = "the network itself is not on the grid"
        if len(here):
            centre = f"{here['loss'].iloc[0]:.4g} at the network itself"
        lost = int((~rows["finite"]).sum())
        lines.append(f"  {name}: {centre}, {rows['loss'].min():.4g} to {rows['loss'].max():.4g} over {len(rows)} points"
                     + (f", {lost} not finite" if lost else ""))  # fmt: skip
    explained = result.settings.get("explained")
    said = [f"  the plane holds {sum(explained):.1%} of the run's squared distances"] if explained else []
    return [f"  along {result.settings['directions']}", *lines, *said]


def _report_flatness(results: list[Any], level: float, radius: float | None, file: Path, *, quiet: bool) -> None:
    """Extent below a level and mean rise at a radius, per checkpoint and objective, with the spread over directions."""
    from snn_probe.files import write_atomically
    from snn_probe.flatness import flatness, flatness_spread
    from snn_probe.slices import combine_slices

    table = combine_slices(results)
    if not ((table["alpha"] == 0) & (table["beta"] == 0)).any():
        return  # a grid without the network itself has no flatness
    ends = [axis(table[name]) for name, axis in itertools.product(("alpha", "beta"), (min, max)) if table[name].any()]
    radius = radius if radius is not None else 0.5 * min(map(abs, ends))
    if radius == 0.0:
        return
    found = flatness(table, level=level, radius=radius)
    write_atomically(file, found.to_csv(index=False))
    click.echo(file, err=quiet)
    if quiet:
        return
    spread = flatness_spread(found)
    click.echo(f"flatness (loss up to {level:g} above the network's; rise at {radius:g})")
    for row in spread.itertuples():
        many = f" +- {row.rise_std:.2g} over {row.n} directions" if row.n > 1 else ""
        bound = "" if row.complete else " at least"
        what = "length" if row.dimensions == 1 else "area"
        epoch = "" if row.epoch is None or row.epoch != row.epoch else f" epoch {row.epoch}"
        click.echo(f"  {row.run}{epoch} {row.objective}: {what}{bound} {row.extent:.4g} "
                   f"({row.share:.1%} of the grid), rise {row.rise:.4g}{many}")  # fmt: skip
