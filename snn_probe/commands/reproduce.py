"""``snnprobe reproduce``."""

from pathlib import Path
from typing import Any

import click

from snn_probe.commands.kinds import SVG, WIDTH, Device, formats
from snn_probe.commands.probe_options import planned_devices
from snn_probe.machine.console import quieter


@click.command()
@click.argument("recipe", metavar="RECIPE", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="The study's folder.  [reports/<name of the recipe>]")
@click.option("--dry-run", is_flag=True, help="Say what there is to do: passes, time, memory and disk, after a short "
              "calibration; write nothing.")  # fmt: skip
@click.option("--devices", type=click.IntRange(min=1), metavar="N",
              help="With --dry-run: on so many devices, with --jobs processes on each.  [1]")  # fmt: skip
@click.option("--model", "models", multiple=True, metavar="MODULE:FACTORY",
              help="The network of your own that the recipe names may be imported; may be repeated.")  # fmt: skip
@click.option("--data", "datasets", multiple=True, metavar="MODULE:FACTORY",
              help="So may the data of your own; or the folder of its image-folder or frame-folder.")  # fmt: skip
@click.option("--objective", "objectives", multiple=True, metavar="MODULE:NAME",
              help="So may the objective of your own; may be repeated.")  # fmt: skip
@click.option("--data-root", envvar="SNNPROBE_DATA", type=click.Path(path_type=Path),
              help="Folder of the data sets on the disk.  [$SNNPROBE_DATA]")  # fmt: skip
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(min=1),
              help="Processes; runs are independent of each other.")  # fmt: skip
@click.option("--threads", default=1, show_default=True, type=click.IntRange(min=1),
              help="Of each process; another number changes results by rounding.")  # fmt: skip
@click.option("--device", default="cpu", show_default=True, type=Device(),
              help="cpu, cuda or cuda:N; with cuda the processes of --jobs take several GPUs in turn.")  # fmt: skip
@click.option("--keep", default="probed", show_default=True, type=click.Choice(("nothing", "probed", "all")),
              help="Checkpoints that stay when a run is done: none, those of the probed epochs (for further probes "
                   "without training again), or last, best and resume.pt too.")  # fmt: skip
@WIDTH
@SVG
def reproduce(
    recipe: Path, out: Path | None, dry_run: bool, devices: int | None, data_root: Path | None, jobs: int, threads: int,
    device: str, keep: str, width: float, svg: bool, **code: tuple[str, ...],
) -> None:  # fmt: skip
    """Do what a recipe says: train, measure, draw, judge the claims, and write a report.

    Interrupted, it continues where it stopped; a changed recipe redoes only what depends on the change.
    """
    from snn_probe.studies.products import Where
    from snn_probe.studies.recipe import read_recipe
    from snn_probe.study import preview, run_study

    instead = "give --device cuda with --jobs of at least {}"
    planned = planned_devices({"dry_run": dry_run, "devices": devices}, instead)
    try:
        found = read_recipe(recipe)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    for warning in found.warnings():
        click.echo(f"Warning: {warning}", err=True)
    data_root = _allow(found, code) or data_root
    folder = out or Path("reports") / recipe.stem
    where = Where(folder, data_root, device, threads, keep)
    if planned is not None:
        click.echo("\n".join(preview(found, where, jobs=jobs, devices=planned)))
        return
    with quieter("snn_probe.training"):  # the study's own progress is enough
        run_study(found, recipe.stem, where, jobs=jobs, width=width, formats=formats(svg))
    for name in ("claims.csv", "report.md", "report.html"):
        click.echo(folder / name)


def _allow(recipe: Any, code: dict[str, tuple[str, ...]]) -> Path | None:
    """Let the code that the user has named and the recipe names too be imported until the command ends; the folder
    among the data."""
    from snn_probe.data import named
    from snn_probe.own import allowing

    root, wanted = None, recipe.own_code()
    sets = {config.dataset for config in (recipe.config(arm, recipe.sizes[0], recipe.seeds[0]) for arm in recipe.arms)}
    for option, names in (
        ("--model", code["models"]),
        ("--data", code["datasets"]),
        ("--objective", code["objectives"]),
    ):
        for name in names:
            name, folder = named(name) if option == "--data" else (name, None)
            root = folder or root
            known = [own for own, of in wanted.items() if of == option]
            if name not in known and not (folder and name in sets):
                said = f"names {', '.join(map(repr, known))}" if known else "names no code of your own there"
                raise click.UsageError(f"{option} is {name!r}, but the recipe {said}; give that, or leave it out.")
    click.get_current_context().with_resource(allowing(name for names in code.values() for name in names))
    return root
