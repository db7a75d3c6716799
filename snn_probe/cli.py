"""The command line: parse, call, save, print the path. Heavy imports are inside the commands, so --help is fast."""

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from snn_probe import __version__

EPILOG = "Exit status: 0 done, 1 failed, 2 wrong usage, 130/143 interrupted."


class _Group(click.Group):
    """Turns the package's exceptions into one sentence and an exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        def stop(number, frame):
            raise SystemExit(128 + number)

        signal.signal(signal.SIGTERM, stop)
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("Interrupted; what was saved before is complete.", err=True)
            raise SystemExit(130) from None
        except (ValueError, OSError, RuntimeError) as error:
            if isinstance(error, BrokenPipeError) or ctx.params.get("debug"):
                raise
            click.echo(f"Error: {' '.join(str(error).split())}", err=True)
            raise SystemExit(1) from None


@click.group(cls=_Group, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="snnprobe")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Train spiking networks (SDT, TET, TRT) and measure what training did to them over time."""


def _pairs(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    """``-p decay=0.5`` -> {"decay": 0.5}; numbers where they parse as numbers, else text."""
    found = {}
    for item in values:
        name, equals, text = item.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{item!r} is not NAME=VALUE; write for example -p decay=0.5.")
        try:
            found[name] = float(text)
        except ValueError:
            found[name] = text
    return found


def _epochs(ctx: click.Context, param: click.Parameter, text: str | None) -> list[int]:
    try:
        return [int(part) for part in text.split(",")] if text else []
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a list of epochs; write for example 1,5,20.") from None


@main.command()
@click.option("--method", default="sdt", show_default=True, help="Objective: sdt, tet or trt.")
@click.option("--dataset", default="digits", show_default=True, help="digits or event-digits.")
@click.option("--model", default="tiny", show_default=True, help="tiny or vggsnn.")
@click.option("--num-steps", default=4, show_default=True, help="Timesteps T.")
@click.option("--epochs", default=20, show_default=True)
@click.option("--batch-size", default=64, show_default=True)
@click.option("--learning-rate", default=1e-3, show_default=True, help="Of Adam, before the cosine schedule.")
@click.option("--train-examples", type=int, help="Use the first N training examples, balanced over classes.  [all]")
@click.option("--augment", is_flag=True, help="Shift training inputs at random by up to a pixel.")
@click.option("--seed", default=0, show_default=True)
@click.option("-p", "hyperparameters", multiple=True, callback=_pairs, metavar="NAME=VALUE",
              help="Hyperparameter of the objective, for example -p decay=0.5; may be repeated.")  # fmt: skip
@click.option("--save-epochs", callback=_epochs, metavar="1,5,20", help="Epochs whose checkpoints are kept.")
@click.option("--out", type=click.Path(path_type=Path), help="The run's folder.  [trained_models/<run>]")
@click.option("--resume", is_flag=True, help="Continue the run in its folder exactly where it stopped.")
@click.pass_context
def train(ctx: click.Context, out: Path | None, resume: bool, save_epochs: list[int], **options: Any) -> None:
    """Train a network; write its checkpoints and metrics."""
    from snn_probe.checkpoint import network_of
    from snn_probe.config import RunConfig
    from snn_probe.progress import Progress
    from snn_probe.run_folder import RunFolder
    from snn_probe.training import train as train_epochs

    try:
        if resume and out and RunFolder(out).config.exists():
            stored = RunFolder(out).read_config()
            given = {k: v for k, v in options.items() if ctx.get_parameter_source(k) is ParameterSource.COMMANDLINE}
            if "hyperparameters" in given:
                given["hyperparameters"] = {**stored.get("hyperparameters", {}), **given["hyperparameters"]}
            options = {**stored, **given}
        config = RunConfig.from_dict(options)
        network_of(config)
        beyond = [e for e in save_epochs if not 1 <= e <= config.epochs]
        if beyond:
            raise ValueError(f"--save-epochs has {beyond[0]}; give epochs from 1 to {config.epochs}.")
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    folder = out or Path("trained_models") / config.run_name()
    run = RunFolder(folder)
    for checkpoint in train_epochs(config, folder=folder, resume=resume, save_epochs=save_epochs, progress=Progress):
        row = checkpoint.card["metrics"]
        click.echo(
            f"epoch {row['epoch']}/{config.epochs}  loss {row['train_loss']:.4f}  "
            f"accuracy train {row['train_accuracy']:.2%} validation {row['validation_accuracy']:.2%} "
            f"test {row['test_accuracy']:.2%}  {row['seconds']:.1f} s",
            err=True,
        )
    _report_training(run, config.epochs)


def _report_training(run: Any, epochs: int) -> None:
    from snn_probe.checkpoint import load

    for kind in ("last", "best"):
        path = run.checkpoint(kind, epochs)
        checkpoint = load(path)
        row = checkpoint.card["metrics"]
        chosen = "chosen on validation" if kind == "best" else "end of training"
        click.echo(f"{path}  epoch {checkpoint.epoch} ({chosen}): test accuracy {row['test_accuracy']:.2%}")
    click.echo(run.metrics)


def _probe_options(command: Callable) -> Callable:
    """Arguments and options that every probe command shares."""
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


@main.command()
@_probe_options
@click.option("--group-size", default=1, show_default=True, type=click.IntRange(min=1),
              help="Examples averaged before squaring; 1 is the empirical Fisher, 16 reproduces published curves.")  # fmt: skip
@click.option("--labels", default="true", show_default=True, type=click.Choice(("true", "sampled")))
@click.option("--readout", default="prefix", show_default=True, type=click.Choice(("prefix", "instantaneous")))
@click.option("--seed", default=0, show_default=True, help="For sampled labels.")
def fisher(checkpoints: tuple[Path, ...], group_size: int, labels: str, readout: str, seed: int, **shared: Any) -> None:
    """Fisher trace of every layer at every timestep, and the information centroid."""
    from snn_probe.probes import fisher_trace

    def measure(model, batches):
        return fisher_trace(model, batches, group_size=group_size, labels=labels, readout=readout, seed=seed)

    _probe("fisher", checkpoints, measure, _fisher_lines, **shared)


def _fisher_lines(result: Any) -> list[str]:
    from snn_probe.centroid import information_centroid

    rows = result.table[result.table["layer"] == "all"]
    lines = [f"  {'timestep':>8}  {'trace':>12}  {'stderr':>10}"]
    lines += [f"  {r.timestep:>8}  {r.trace:>12.6g}  {r.stderr:>10.2g}" for r in rows.itertuples()]
    groups, size = rows["n_groups"].iloc[0], result.settings["group_size"]
    estimator = "per example" if size == 1 else f"mean gradient of {size} examples"
    return [*lines, f"  information centroid {information_centroid(result.table):.4f}  ({groups} groups, {estimator})"]


def _probe(name, checkpoints, measure, lines, *, split, num_examples, batch_size, out, no_figure, as_json) -> None:
    """Measure each checkpoint, save each result, and draw them all in one figure."""
    from snn_probe.results import save

    out = out or _default_out(checkpoints)
    results, paths = [], []
    for path in checkpoints:
        result = _measured(path, measure, name, split, num_examples, batch_size)
        written = out / f"{name}_{_label(path, checkpoints)}.json"
        save(result, written)
        results.append(result)
        paths.append(written)
        if not as_json:
            click.echo("\n".join([f"{path}  ({result.source['run']}, epoch {result.source['epoch']})", *lines(result)]))
    if as_json:
        texts = [p.read_text(encoding="utf-8") for p in paths]
        click.echo(texts[0] if len(texts) == 1 else json.dumps([json.loads(t) for t in texts]))
    if len(results) > 1:
        paths.append(_combined_table(results, out / f"{name}.csv"))
    if not no_figure:
        paths += _figures(results, out, ("png", "pdf"))
    for path in paths:
        click.echo(path, err=as_json)


def _measured(path: Path, measure, name: str, split: str, num_examples: int | None, batch_size: int) -> Any:
    from dataclasses import replace

    from snn_probe.checkpoint import build_model, load
    from snn_probe.data import batches
    from snn_probe.data import load as load_data
    from snn_probe.progress import Progress

    checkpoint = load(path)
    config = checkpoint.config
    data = load_data(config.dataset, split, num_steps=config.num_steps, num_examples=None)
    wanted = num_examples if num_examples is not None else min(512, len(data))
    data = load_data(config.dataset, split, num_steps=config.num_steps, num_examples=wanted)
    result = measure(build_model(checkpoint), Progress(batches(data, batch_size), f"{name} {path.stem}"))
    settings = {**result.settings, "split": split, "num_examples": wanted}
    return replace(result, settings=settings, source={**checkpoint.card, "file": path.name})


def _default_out(checkpoints: tuple[Path, ...]) -> Path:
    """reports/<run> for checkpoints of one run; reports/<run>+<n> where there are n other runs."""
    runs = list(dict.fromkeys(_run_of(path) for path in checkpoints))
    return Path("reports") / (runs[0] if len(runs) == 1 else f"{runs[0]}+{len(runs) - 1}")


def _run_of(path: Path) -> str:
    folder = path.resolve().parent
    return folder.parent.name if folder.name == "checkpoints" else path.stem


def _label(path: Path, checkpoints: tuple[Path, ...]) -> str:
    several = len({_run_of(p) for p in checkpoints}) > 1
    return f"{_run_of(path)}_{path.stem}" if several and _run_of(path) != path.stem else path.stem


def _combined_table(results: list[Any], path: Path) -> Path:
    from snn_probe.files import write_atomically
    from snn_probe.results import combine

    write_atomically(path, combine(results).to_csv(index=False))
    return path


def _figures(results: list[Any], folder: Path, formats: tuple[str, ...]) -> list[Path]:
    from snn_probe.figures import draw, figure_bytes, figure_names
    from snn_probe.files import write_atomically
    from snn_probe.results import combine

    table, written = combine(results), []
    for name in figure_names(results[0].probe, table):
        figure = draw(name, table, **_figure_options(name, results))
        for suffix in formats:
            written.append(folder / f"{name}.{suffix}")
            write_atomically(written[-1], figure_bytes(figure, suffix))
    return written


def _figure_options(name: str, results: list[Any]) -> dict[str, Any]:
    """What the axis must say of how the numbers were estimated; refuses to mix estimators in one figure."""
    if results[0].probe != "fisher_trace":
        return {}
    kinds = {(r.settings["group_size"], r.settings["labels"], r.settings["readout"]) for r in results}
    if len(kinds) > 1:
        raise ValueError(
            "These Fisher results have different group_size, labels or readout, so they cannot share an axis; "
            "draw them in separate figures."
        )
    ((size, labels, readout),) = kinds
    said = ["empirical" if labels == "true" else "sampled labels"]
    said += [f"batch mean of {size}"] * (size > 1) + [readout] * (readout != "prefix")
    return {"estimator": ", ".join(said)} if name == "fisher_trace" else {}


@main.command()
@click.argument("files", nargs=-1, required=True, metavar="RESULT.json...", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="FIG.pdf, FIG.png or FIG.svg.")
@click.option("--figure", "name", help="Which figure, where there are several.  [the first]")
@click.option("--width", default=3.25, show_default=True, type=click.FloatRange(min=1.0, max=20.0), help="In inches.")
def figure(files: tuple[Path, ...], out: Path, name: str | None, width: float) -> None:
    """Draw stored results, or the learning curves of runs (their folders or metrics.csv), without computing anew."""
    from snn_probe.figures import draw, figure_bytes, figure_names
    from snn_probe.files import write_atomically

    suffix = out.suffix.lstrip(".")
    if suffix not in ("pdf", "png", "svg"):
        raise click.UsageError(f"-o is {str(out)!r}; end it in .pdf, .png or .svg.")
    probe, table, results = _tables(files)
    names = figure_names(probe, table)
    if name is not None and name not in names:
        raise click.UsageError(f"--figure is {name!r}; these files allow {', '.join(names)}.")
    chosen = name or names[0]
    options = _figure_options(chosen, results) if results else {}
    write_atomically(out, figure_bytes(draw(chosen, table, width=width, **options), suffix))
    click.echo(out)


def _tables(files: tuple[Path, ...]) -> tuple[str, Any, list[Any]]:
    """What to draw: the metrics of runs, or results of one probe."""
    import pandas as pd

    from snn_probe.results import combine, load

    runs = [path for path in files if path.is_dir() or path.suffix == ".csv"]
    if runs and len(runs) < len(files):
        raise ValueError("Runs and results cannot share a figure; give either metrics.csv files or RESULT.json files.")
    if runs:
        return "metrics", pd.concat([_metrics(path) for path in runs], ignore_index=True), []
    results = [load(path) for path in files]
    return results[0].probe, combine(results), results


def _metrics(path: Path) -> Any:
    """A run's metrics.csv with the columns that tell the run, from its config.json."""
    import pandas as pd

    from snn_probe.run_folder import RunFolder

    run = RunFolder(path if path.is_dir() else path.parent)
    config = run.read_config()
    try:
        table = pd.read_csv(run.metrics)
    except (OSError, ValueError) as error:
        raise ValueError(f"{run.metrics} cannot be read ({error}); give a run's folder or its metrics.csv.") from None
    known = {key: config.get(key) for key in ("method", "dataset", "model", "seed", "num_steps")}
    return table.assign(run=run.path.name, **known)


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
def show(file: Path) -> None:
    """Say what a checkpoint, a result or a run's folder holds."""
    from snn_probe.show import describe

    click.echo("\n".join(describe(file)))


if __name__ == "__main__":
    sys.exit(main())
