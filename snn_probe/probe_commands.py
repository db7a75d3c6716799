"""The commands that measure checkpoints. Each parses, calls its probe through ``measuring.run`` and prints."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click


def shared(command: Callable) -> Callable:
    """Arguments and options that every probe command has."""
    for option in reversed(
        (
            click.argument("checkpoints", nargs=-1, required=True, metavar="CKPT...", type=click.Path(path_type=Path)),
            click.option("--split", default="train", show_default=True, type=click.Choice(("train", "validation", "test"))),
            click.option("--num-examples", type=click.IntRange(min=1), help="The first N of the split.  [512, or all if fewer]"),
            click.option("--batch-size", default=64, show_default=True, type=click.IntRange(min=1)),
            click.option("--out", type=click.Path(path_type=Path), help="Folder for results and figures.  [reports/<run>]"),
            click.option("--no-figure", is_flag=True, help="Write the results only."),
            click.option("--json", "as_json", is_flag=True, help="Print the results as JSON instead of a table."),
        )
    ):  # fmt: skip
        command = option(command)
    return command


OBJECTIVE = click.option(
    "--objective",
    default="own",
    show_default=True,
    type=click.Choice(("own", "sdt", "tet", "trt")),
    help="Loss to differentiate: the one the checkpoint was trained with, or another with its default settings.",
)


def _objective(name: str, job: Any) -> Any:
    from snn_probe.objectives import OBJECTIVES

    return job.checkpoint.config.objective() if name == "own" else OBJECTIVES[name]()


@click.command()
@shared
@click.option("--group-size", default=1, show_default=True, type=click.IntRange(min=1),
              help="Examples averaged before squaring; 1 is the empirical Fisher, 16 reproduces published curves.")  # fmt: skip
@click.option("--labels", default="true", show_default=True, type=click.Choice(("true", "sampled")))
@click.option("--readout", default="prefix", show_default=True, type=click.Choice(("prefix", "instantaneous")))
@click.option("--seed", default=0, show_default=True, help="For sampled labels.")
def fisher(
    checkpoints: tuple[Path, ...], group_size: int, labels: str, readout: str, seed: int, **options: Any
) -> None:
    """Fisher trace of every layer at every timestep, and the information centroid."""
    from snn_probe.measuring import Measurement, run
    from snn_probe.probes import fisher_trace

    def measure(job):
        chosen = dict(group_size=group_size, labels=labels, readout=readout, seed=seed)
        return fisher_trace(job.model, job.batches, **chosen)

    run([Measurement("fisher", measure, _fisher_lines)], checkpoints, **options)


def _fisher_lines(result: Any) -> list[str]:
    from snn_probe.centroid import information_centroid

    rows = result.table[result.table["layer"] == "all"]
    lines = [f"  {'timestep':>8}  {'trace':>12}  {'stderr':>10}"]
    lines += [f"  {r.timestep:>8}  {r.trace:>12.6g}  {r.stderr:>10.2g}" for r in rows.itertuples()]
    groups, size = rows["n_groups"].iloc[0], result.settings["group_size"]
    estimator = "per example" if size == 1 else f"mean gradient of {size} examples"
    return [*lines, f"  information centroid {information_centroid(result.table):.4f}  ({groups} groups, {estimator})"]


@click.command()
@shared
@OBJECTIVE
@click.option("--quantity", "quantities", multiple=True, default=("eigenvalues", "trace"), show_default=True,
              type=click.Choice(("eigenvalues", "trace", "density")), help="What to measure; may be repeated.")  # fmt: skip
@click.option("-k", default=5, show_default=True, type=click.IntRange(min=1), help="Eigenvalues, the largest first.")
@click.option("--tol", default=1e-3, show_default=True, help="Residual, relative to the largest eigenvalue.")
@click.option("--operator", default="hessian", show_default=True, type=click.Choice(("hessian", "ggn")))
@click.option("--forward", default="spiking", show_default=True, type=click.Choice(("spiking", "relaxed")),
              help="relaxed: spikes replaced by the surrogate's primitive, where curvature is that of the loss.")  # fmt: skip
@click.option(
    "--num-probes", type=click.IntRange(min=2), help="Random vectors.  [30 for the trace, 10 for the density]"
)
@click.option("--seed", default=0, show_default=True)
def hessian(
    checkpoints: tuple[Path, ...], objective, quantities, k, tol, operator, forward, num_probes, seed, **options
):
    """Top eigenvalues, trace or spectral density of the Hessian or the Gauss-Newton matrix."""
    from snn_probe.measuring import Measurement, run
    from snn_probe.probes import hessian_density, hessian_eigenvalues, hessian_trace

    common = dict(operator=operator, forward=forward, seed=seed)
    probes = {"eigenvalues": (hessian_eigenvalues, dict(k=k, tol=tol)), "trace": (hessian_trace, {}), "density": (hessian_density, {})}  # fmt: skip
    wanted = []
    for quantity in dict.fromkeys(quantities):
        probe, own = probes[quantity]
        if num_probes is not None and quantity != "eigenvalues":
            own = {**own, "num_probes": num_probes}

        def measure(job, probe=probe, own=own):
            return probe(job.model, job.batches, _objective(objective, job), **own, **common)

        wanted.append(Measurement(f"hessian_{quantity}", measure, _hessian_lines))
    run(wanted, checkpoints, **options)


def _hessian_lines(result: Any) -> list[str]:
    said = f"{result.settings['operator']}, {result.settings['forward']} forward, {result.settings['objective']}"
    if result.probe == "hessian_density":
        table = result.table
        return [f"  density over [{table['eigenvalue'].min():.4g}, {table['eigenvalue'].max():.4g}]  ({said})"]
    if result.probe == "hessian_trace":
        row = result.table.iloc[0]
        return [f"  trace {row['trace']:.6g} +- {row['stderr']:.2g}  ({said})"]
    lines = [f"  {'rank':>4}  {'eigenvalue':>12}  {'residual':>9}"]
    for row in result.table.itertuples():
        mark = "" if row.converged else "  not converged: a lower bound"
        lines.append(f"  {row.rank:>4}  {row.eigenvalue:>12.6g}  {row.residual:>9.1e}{mark}")
    return [*lines, f"  {row.products} products  ({said})"]


@click.command()
@shared
@click.option("--objective", "objectives", multiple=True, default=("sdt", "tet"), show_default=True,
              type=click.Choice(("sdt", "tet", "trt")), help="Losses, all from the same forward passes; may be repeated.")  # fmt: skip
@click.option("--plane", is_flag=True, help="Two directions instead of one.")
@click.option(
    "--points", default=21, show_default=True, type=click.IntRange(min=2), help="Along each direction; odd has 0."
)
@click.option("--range", "reach", default=1.0, show_default=True, type=click.FloatRange(min=0, min_open=True),
              help="The grid covers [-range, range].")  # fmt: skip
@click.option("--to", "other", type=click.Path(path_type=Path), help="Along the line to this checkpoint (1 is it).")
@click.option("--seed", default=0, show_default=True, help="Of the random directions, filter-normalized.")
def landscape(checkpoints: tuple[Path, ...], objectives, plane, points, reach, other, seed, **options: Any) -> None:
    """Loss and accuracy along a line or on a plane through the weights; a half-finished grid is continued."""
    import numpy as np

    from snn_probe.measuring import Measurement, run
    from snn_probe.objectives import OBJECTIVES
    from snn_probe.probes import loss_slice

    if plane and other:
        raise click.UsageError("--plane and --to exclude each other; a line to a checkpoint has one direction.")
    axis = np.linspace(-reach, reach, points).tolist()

    partials = []

    def measure(job):
        partials.append(job.path.with_suffix(".partial.json"))
        chosen = dict(alphas=axis, betas=axis if plane else (0.0,), seed=seed, directions=_line(job, other))
        wanted = [OBJECTIVES[name]() for name in objectives]
        return _continued(loss_slice, job, partials[-1], job.model, job.batches.iterable, wanted, **chosen)

    run([Measurement("landscape", measure, _landscape_lines)], checkpoints, **options)
    for partial in partials:  # the results are saved whole by now
        partial.unlink(missing_ok=True)


def _line(job: Any, other: Path | None) -> Any:
    """The direction to another checkpoint of the same network; None without one."""
    if other is None:
        return None
    from snn_probe.checkpoint import load
    from snn_probe.parameters import trainable
    from snn_probe.probes.directions import direction_between

    params = {name: p.detach() for name, p in trainable(job.model).items()}
    weights = load(other).state_dict
    return direction_between(params, {name: weights[name] for name in weights if name in params})


def _continued(loss_slice: Callable, job: Any, partial: Path, *arguments: Any, **options: Any) -> Any:
    """The slice, its points kept in ``partial`` as they come; points of the same settings found there are not redone."""
    from dataclasses import replace

    from snn_probe.progress import Progress
    from snn_probe.results import load, save

    def keep(result):
        save(replace(result, source=dict(job.checkpoint.card)), partial)

    known = load(partial) if partial.exists() else None
    try:
        return loss_slice(*arguments, save=keep, progress=Progress, resume=known, **options)
    except ValueError as error:
        if known is None or not str(error).startswith("resume was measured with other"):
            raise
        return loss_slice(*arguments, save=keep, progress=Progress, **options)


def _landscape_lines(result: Any) -> list[str]:
    lines = []
    for name, rows in result.table.groupby("objective", sort=False):
        here = rows[(rows["alpha"] == 0) & (rows["beta"] == 0)]
        centre = (
            f"{here['loss'].iloc[0]:.4g} at the network itself"
            if len(here)
            else "the network itself is not on the grid"
        )
        lost = int((~rows["finite"]).sum())
        lines.append(f"  {name}: {centre}, {rows['loss'].min():.4g} to {rows['loss'].max():.4g} over {len(rows)} points"
                     + (f", {lost} not finite" if lost else ""))  # fmt: skip
    return lines


@click.command()
@shared
@OBJECTIVE
def gradients(checkpoints: tuple[Path, ...], objective: str, **options: Any) -> None:
    """Norm of the gradient at each spiking layer's input current, per timestep, with and without the path through time."""
    from snn_probe.measuring import Measurement, run
    from snn_probe.probes import gradient_ratio, temporal_gradient_norms

    def lines(result):
        ratios = dict(gradient_ratio(result.table).itertuples(index=False))
        steps = result.settings["num_steps"]
        return [f"  {layer}: norm at t=1 over t={steps}: {ratio:.4g}" for layer, ratio in ratios.items()]

    def measure(job):
        return temporal_gradient_norms(job.model, job.batches, _objective(objective, job))

    run([Measurement("gradients", measure, lines)], checkpoints, **options)


@click.command()
@shared
@click.option(
    "--num-steps", type=click.IntRange(min=1), help="Simulate up to this T (static images only).  [the run's T]"
)
def timesteps(checkpoints: tuple[Path, ...], num_steps: int | None, **options: Any) -> None:
    """Accuracy and loss of the mean of the first t logits."""
    from snn_probe.measuring import Measurement, run
    from snn_probe.probes import timestep_accuracy

    def lines(result):
        rows = result.table.itertuples()
        return [f"  t={r.timestep}: accuracy {r.accuracy:.2%} +- {r.stderr:.2%}, loss {r.loss:.4f}" for r in rows]

    def measure(job):
        return timestep_accuracy(job.model, job.batches, num_steps=num_steps)

    run([Measurement("timesteps", measure, lines)], checkpoints, **options)


@click.command()
@shared
def activity(checkpoints: tuple[Path, ...], **options: Any) -> None:
    """Firing rates, synaptic operations and energy per layer and timestep."""
    from snn_probe.measuring import Measurement, run
    from snn_probe.probes import energy_ratio, spiking_activity

    def lines(result):
        table = result.table
        rates = (
            table[table["firing_rate"].notna() & (table["layer"] != "all")]
            .groupby("layer", sort=False)["firing_rate"]
            .mean()
        )
        total = table[table["layer"] == "all"][["synops", "energy_pj"]].sum()
        said = [f"  {layer}: {rate:.4f} spikes per neuron and timestep" for layer, rate in rates.items()]
        return [*said, f"  per example {total['synops']:.4g} synaptic operations, {total['energy_pj'] / 1e3:.4g} nJ, "
                f"{energy_ratio(result):.2g} of a network without spikes"]  # fmt: skip

    run([Measurement("activity", lambda job: spiking_activity(job.model, job.batches), lines)], checkpoints, **options)


COMMANDS = (fisher, hessian, gradients, landscape, timesteps, activity)
