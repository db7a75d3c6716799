"""The command line: parse, call, save, print the path. Heavy imports are inside the commands, so --help is fast."""

import signal
import sys
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from snn_probe import __version__
from snn_probe.probe_commands import COMMANDS

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
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if ctx.params.get("debug"):
                raise
            said = " ".join(str(error).split())
            if not isinstance(error, ValueError | OSError | RuntimeError):  # foreseen nowhere
                said = f"{type(error).__name__}: {said}; run snnprobe --debug for the traceback, and please report it."
            click.echo(f"Error: {said}", err=True)
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
    from snn_probe.progress import Progress
    from snn_probe.run_folder import RunFolder
    from snn_probe.training import train as train_epochs

    folder = out or Path("trained_models") / _configuration(options).run_name()
    if resume and RunFolder(folder).config.exists():
        given = {k: v for k, v in options.items() if ctx.get_parameter_source(k) is ParameterSource.COMMANDLINE}
        options = _continued(RunFolder(folder).read_config(), given)
    config = _configuration(options)
    beyond = [e for e in save_epochs if not 1 <= e <= config.epochs]
    if beyond:
        raise click.UsageError(f"--save-epochs has {beyond[0]}; give epochs from 1 to {config.epochs}.")
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


def _configuration(options: dict[str, Any]) -> Any:
    """The configuration that the options make; what is wrong with them is wrong usage."""
    from snn_probe.checkpoint import network_of
    from snn_probe.config import RunConfig

    try:
        config = RunConfig.from_dict(options)
        network_of(config)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    return config


def _continued(stored: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The stored configuration with what the command line says otherwise, which the run then refuses by name."""
    merged = {**stored, **given}
    changed = given.get("hyperparameters", {})
    same_method = merged.get("method") == stored.get("method")
    return {**merged, "hyperparameters": {**stored.get("hyperparameters", {}), **changed} if same_method else changed}


def _report_training(run: Any, epochs: int) -> None:
    from snn_probe.checkpoint import load

    for kind in ("last", "best"):
        path = run.checkpoint(kind, epochs)
        checkpoint = load(path)
        row = checkpoint.card["metrics"]
        chosen = "chosen on validation" if kind == "best" else "end of training"
        click.echo(f"{path}  epoch {checkpoint.epoch} ({chosen}): test accuracy {row['test_accuracy']:.2%}")
    click.echo(run.metrics)


@main.command()
@click.argument("files", nargs=-1, required=True, metavar="RESULT.json...", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="FIG.pdf, FIG.png or FIG.svg.")
@click.option("--figure", "name", help="Which figure, where there are several.  [the first]")
@click.option("--width", default=3.25, show_default=True, type=click.FloatRange(min=1.0, max=20.0), help="In inches.")
def figure(files: tuple[Path, ...], out: Path, name: str | None, width: float) -> None:
    """Draw stored results, or the learning curves of runs (their folders or metrics.csv), without computing anew."""
    from snn_probe.files import write_atomically
    from snn_probe.gallery import draw, figure_bytes, figure_names, figure_options

    suffix = out.suffix.lstrip(".")
    if suffix not in ("pdf", "png", "svg"):
        raise click.UsageError(f"-o is {str(out)!r}; end it in .pdf, .png or .svg.")
    probe, table, results = _tables(files)
    names = figure_names(probe, table)
    if not names:
        raise ValueError(f"There is no figure of {probe!r} results; give results of a probe that has one.")
    if name is not None and name not in names:
        raise click.UsageError(f"--figure is {name!r}; these files allow {', '.join(names)}.")
    chosen = name or names[0]
    options = figure_options(chosen, results) if results else {}
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
    return table.assign(run=run.path.resolve().name, **known)


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
def show(file: Path) -> None:
    """Say what a checkpoint, a result or a run's folder holds."""
    from snn_probe.show import describe

    click.echo("\n".join(describe(file)))


for command in COMMANDS:
    main.add_command(command)


if __name__ == "__main__":
    sys.exit(main())
