"""The commands that measure networks. Each parses, calls its probe through ``measuring.run`` and prints."""

from typing import Any

import click

from snn_probe.commands.landscape import landscape
from snn_probe.commands.probe_options import OBJECTIVE, objective_of, shared, shared_simulating


@click.command()
@shared
@click.option("--group-size", default=1, show_default=True, type=click.IntRange(min=1),
              help="Examples averaged before squaring; 1 is the empirical Fisher, 16 reproduces published curves.")  # fmt: skip
@click.option("--labels", default="true", show_default=True, type=click.Choice(("true", "sampled")))
@click.option("--readout", default="prefix", show_default=True, type=click.Choice(("prefix", "instantaneous")))
@click.option("--seed", default=0, show_default=True, help="For sampled labels.")
def fisher(subjects: tuple[Any, ...], group_size: int, labels: str, readout: str, seed: int, **options: Any) -> None:
    """Fisher trace of every layer at every timestep, and the information centroid."""
    from snn_probe.commands.measuring import run
    from snn_probe.costs.passes import fisher_passes
    from snn_probe.measurement import Measurement, once
    from snn_probe.probes import fisher_trace

    def measure(job):
        return fisher_trace(job.model, job.batches, group_size=group_size, labels=labels, readout=readout, seed=seed)

    run([Measurement("fisher", measure, _fisher_lines, efforts=once(measure, fisher_passes))], subjects, **options)


def _fisher_lines(result: Any) -> list[str]:
    from snn_probe.tables.centroid import information_centroid

    rows = result.table[result.table["layer"] == "all"]
    lines = [f"  {'timestep':>8}  {'trace':>12}  {'stderr':>10}"]
    lines += [f"  {r.timestep:>8}  {r.trace:>12.6g}  {r.stderr:>10.2g}" for r in rows.itertuples()]
    groups, size = rows["n_groups"].iloc[0], result.settings["group_size"]
    estimator = "per example" if size == 1 else f"mean gradient of {size} examples"
    lines.append(f"  information centroid {information_centroid(result.table):.4f}  ({groups} groups, {estimator})")
    if looped := result.settings.get("looped_parameters"):
        share, more = result.settings["looped_share"], ", ..." if len(looped) > 3 else ""
        lines.append(f"  {share:.1%} of the parameters took the slow path: {', '.join(looped[:3])}{more}")
    return lines


@click.command()
@shared
@OBJECTIVE
@click.option("--quantity", "quantities", multiple=True, default=("eigenvalues", "trace"), show_default=True,
              type=click.Choice(("eigenvalues", "trace", "density")), help="What to measure; may be repeated.")  # fmt: skip
@click.option("-k", default=5, show_default=True, type=click.IntRange(min=1), help="Eigenvalues, the largest first.")
@click.option(
    "--tol",
    default=1e-3,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Residual, relative to the largest eigenvalue.",
)
@click.option("--operator", default="hessian", show_default=True, type=click.Choice(("hessian", "ggn")))
@click.option("--forward", default="spiking", show_default=True, type=click.Choice(("spiking", "relaxed")),
              help="relaxed: spikes replaced by the surrogate's primitive, where curvature is that of the loss.")  # fmt: skip
@click.option(
    "--num-probes", type=click.IntRange(min=2), help="Random vectors.  [30 for the trace, 10 for the density]"
)
@click.option("--layer", "layers", multiple=True, metavar="NAME",
              help="Of this layer's weights alone, for example net.conv1, or each; may be repeated.  [whole network]")  # fmt: skip
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
def hessian(
    subjects: tuple[Any, ...], objective, quantities, k, tol, operator, forward, num_probes, layers, seed, **options
):
    """Top eigenvalues, trace or spectral density of the Hessian or the Gauss-Newton matrix."""
    from snn_probe.commands.measuring import default_out, run

    chosen = dict(operator=operator, forward=forward, seed=seed)
    if not layers:
        run(_curvature(objective, quantities, k, tol, num_probes, **chosen), subjects, **options)
        return
    if options["as_json"] and (len(layers) > 1 or "each" in layers):
        raise click.UsageError("--json prints one document; give one --layer with it.")
    folder = options.pop("out") or default_out(subjects)
    for layer, names in _layers(subjects, layers).items():
        click.echo(layer, err=options["as_json"])
        own = dict(chosen, params=frozenset(names).__contains__)
        wanted = _curvature(objective, quantities, min(k, sum(names.values())), tol, num_probes, **own)
        run(wanted, subjects, out=folder / layer, **options)


def _layers(subjects: tuple[Any, ...], layers: tuple[str, ...]) -> dict[str, dict[str, int]]:
    """The names and sizes of the trainable parameters of each layer asked for."""
    from snn_probe.checkpoint import build_model
    from snn_probe.parameters import trainable

    found: dict[str, dict[str, int]] = {}
    for name, parameter in trainable(build_model(subjects[0].load())).items():
        found.setdefault(name.rpartition(".")[0], {})[name] = parameter.numel()
    if "each" in layers:
        return found
    if unknown := [layer for layer in layers if layer not in found]:
        raise click.UsageError(f"--layer is {unknown[0]!r}; this network has {', '.join(found)}, or say each.")
    return {layer: found[layer] for layer in layers}


def _curvature(objective, quantities, k, tol, num_probes, **common: Any) -> list[Any]:
    """The measurements that the quantities name."""
    from snn_probe.costs.curvature_efforts import curvature_effort
    from snn_probe.measurement import Measurement
    from snn_probe.probes import hessian_density, hessian_eigenvalues, hessian_trace

    probes = {"eigenvalues": (hessian_eigenvalues, dict(k=k, tol=tol)), "trace": (hessian_trace, {}), "density": (hessian_density, {})}  # fmt: skip
    wanted = []
    for quantity in dict.fromkeys(quantities):
        probe, own = probes[quantity]
        if num_probes is not None and quantity != "eigenvalues":
            own = {**own, "num_probes": num_probes}

        def measure(job, probe=probe, own=own, **fewer):
            return probe(job.model, job.batches, objective_of(objective, job), **{**own, **fewer}, **common)

        effort = curvature_effort(quantity, measure, k=k, num_probes=num_probes, operator=common["operator"])
        wanted.append(Measurement(f"hessian_{quantity}", measure, _hessian_lines, efforts=(effort,)))
    return wanted


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
@OBJECTIVE
def gradients(subjects: tuple[Any, ...], objective: str, **options: Any) -> None:
    """Norm of the gradient at each spiking layer's input current, per timestep, with and without the path through time."""
    from snn_probe.commands.measuring import run
    from snn_probe.costs.passes import FORWARD_AND_BACKWARD
    from snn_probe.measurement import Measurement, once
    from snn_probe.probes import gradient_ratio, temporal_gradient_norms

    def lines(result):
        ratios = dict(gradient_ratio(result.table).itertuples(index=False))
        steps = result.settings["num_steps"]
        return [f"  {layer}: norm at t=1 over t={steps}: {ratio:.4g}" for layer, ratio in ratios.items()]

    def measure(job):
        return temporal_gradient_norms(job.model, job.batches, objective_of(objective, job))

    run(
        [Measurement("gradients", measure, lines, efforts=once(measure, lambda settings, batch: FORWARD_AND_BACKWARD))],
        subjects,
        **options,
    )


@click.command()
@shared_simulating
def timesteps(subjects: tuple[Any, ...], num_steps: int | None, **options: Any) -> None:
    """Accuracy and loss of the mean of the first t logits."""
    from snn_probe.commands.measuring import run
    from snn_probe.costs.passes import FORWARD
    from snn_probe.measurement import Measurement, once
    from snn_probe.probes import timestep_accuracy

    def lines(result):
        rows = result.table.itertuples()
        return [f"  t={r.timestep}: accuracy {r.accuracy:.2%} +- {r.stderr:.2%}, loss {r.loss:.4f}" for r in rows]

    def measure(job):
        return timestep_accuracy(job.model, job.batches, num_steps=num_steps)

    run(
        [Measurement("timesteps", measure, lines, efforts=once(measure, lambda settings, batch: FORWARD))],
        subjects,
        **options,
    )


@click.command()
@shared
def activity(subjects: tuple[Any, ...], **options: Any) -> None:
    """Firing rates, synaptic operations and energy per layer and timestep."""
    from snn_probe.commands.measuring import run
    from snn_probe.costs.passes import FORWARD
    from snn_probe.measurement import Measurement, once
    from snn_probe.probes import energy_ratio, spiking_activity

    def lines(result):
        table = result.table
        rates = (
            table[table["firing_rate"].notna() & (table["layer"] != "all")]
            .groupby("layer", sort=False)["firing_rate"]
            .mean()
        )
        total = table[table["layer"] == "all"][["synops", "energy_pj"]].sum()
        said = [
            f"  {layer}: {rate:.4f} spikes per neuron and timestep{', it never fires' * (rate == 0)}"
            for layer, rate in rates.items()
        ]
        return [*said, f"  per example {total['synops']:.4g} synaptic operations, {total['energy_pj'] / 1e3:.4g} nJ, "
                f"{energy_ratio(result):.2g} of a network without spikes"]  # fmt: skip

    def measure(job):
        return spiking_activity(job.model, job.batches)

    run(
        [Measurement("activity", measure, lines, efforts=once(measure, lambda settings, batch: FORWARD))],
        subjects,
        **options,
    )


COMMANDS = (fisher, hessian, gradients, landscape, timesteps, activity)
