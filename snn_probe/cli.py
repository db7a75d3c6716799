"""The command line: parse, call, save, print the path. Heavy imports are inside the commands, so --help is fast."""

import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import click

from snn_probe import __version__
from snn_probe.commands.completion import completion
from snn_probe.commands.data import data
from snn_probe.commands.doctor import doctor
from snn_probe.commands.export import export
from snn_probe.commands.kinds import Inches
from snn_probe.commands.merge import merge
from snn_probe.commands.presets import presets
from snn_probe.commands.probes import COMMANDS
from snn_probe.commands.report import report
from snn_probe.commands.reproduce import reproduce
from snn_probe.commands.train import train
from snn_probe.machine.console import console
from snn_probe.machine.interrupts import listening

EPILOG = (
    "Exit status: 0 done, 1 failed, 2 wrong usage, 130/143/138 interrupted (SIGINT, SIGTERM, SIGUSR1): what was saved is "
    "whole, and the command goes on from there, train with --resume."
)


class _Group(click.Group):
    """Turns the package's exceptions into one sentence and an exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with listening():
                return super().invoke(ctx)
        except KeyboardInterrupt as stopped:
            if os.environ.get("RANK", "0") == "0":
                click.echo("Interrupted; what was saved before is complete.", err=True)
            raise SystemExit(128 + getattr(stopped, "number", signal.SIGINT)) from None
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if ctx.params.get("debug"):
                raise
            said = " ".join(str(error).split())
            if isinstance(error, ImportError):
                said = f"{error.name or 'A package'} cannot be imported ({said}); snnprobe doctor says what is wrong."
            elif not isinstance(error, ValueError | OSError | RuntimeError):  # foreseen nowhere
                said = f"{type(error).__name__}: {said}; run snnprobe --debug for the traceback, and please report it."
            if os.environ.get("RANK", "0") == "0":  # of the processes that torchrun started, the first speaks
                click.echo(f"Error: {said}", err=True)
            raise SystemExit(1) from None


@click.group(cls=_Group, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="snnprobe")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.option("-v", "--verbose", is_flag=True, help="Say more on stderr, such as every file that is written.")
@click.option("-q", "--quiet", is_flag=True, help="Only warnings and errors on stderr.")
@click.pass_context
def main(ctx: click.Context, debug: bool, verbose: bool, quiet: bool) -> None:
    """Train spiking networks (SDT, TET, TRT) and measure what training did to them over time."""
    if verbose and quiet:
        raise click.UsageError("--verbose and --quiet exclude each other; give one of them.")
    ctx.with_resource(console(logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO))


@main.command()
@click.argument("files", nargs=-1, required=True, metavar="RESULT.json...", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="FIG.pdf, FIG.png or FIG.svg.")
@click.option("--figure", "name", help="Which figure, where there are several.  [the first]")
@click.option("--width", default="3.25in", show_default=True, type=Inches(), help="One column of a journal, or 6.75in.")
def figure(files: tuple[Path, ...], out: Path, name: str | None, width: float) -> None:
    """Draw stored results, or the learning curves of runs (their folders or metrics.csv), without computing anew."""
    from snn_probe.figures import draw, figure_bytes, figure_names, figure_options
    from snn_probe.machine.files import write_atomically

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

    from snn_probe.machine.files import shortened
    from snn_probe.results import method_of
    from snn_probe.runs.run_folder import RunFolder

    run = RunFolder(path if path.is_dir() else path.parent)
    config = run.read_config()
    try:
        table = pd.read_csv(run.metrics)
        table = table.astype({name: int if name == "epoch" else float for name in (*table, "epoch")})
    except (OSError, ValueError, KeyError) as error:
        said = shortened(str(error))
        raise ValueError(f"{run.metrics} cannot be read ({said}); give a run's folder or its metrics.csv.") from None
    known = {key: config.get(key) for key in ("dataset", "model", "seed", "num_steps")} | {"method": method_of(config)}
    return table.assign(run=run.path.resolve().name, **known)


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print all of it as JSON instead, but no weights.")
def show(file: Path, as_json: bool) -> None:
    """Say what a checkpoint, a result or a run's folder holds."""
    from snn_probe.commands.show import describe, document
    from snn_probe.results import strict_json

    click.echo(strict_json(document(file)) if as_json else "\n".join(describe(file)))


for command in (train, presets, data, *COMMANDS, merge, export, reproduce, report, doctor, completion):
    main.add_command(command)


if __name__ == "__main__":
    sys.exit(main())
