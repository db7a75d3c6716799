"""`snnprobe data`: which data sets there are, what is found where, and downloading."""

from pathlib import Path
from typing import Any

import click

from snn_probe.commands.completion import DATASETS as SETS
from snn_probe.commands.completion import one_of


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME|MODULE:FACTORY|FOLDER]...", shell_complete=one_of(*SETS))
@click.option("--num-steps", default=4, show_default=True, type=click.IntRange(min=1),
              help="Timesteps that data of your own are made for.")  # fmt: skip
@click.option("--data-root", type=click.Path(path_type=Path), help="The folder of the data sets.  [$SNNPROBE_DATA]")
@click.option("--download", multiple=True, metavar="NAME", shell_complete=one_of(*SETS),
              help="Download this set first; may be repeated.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON instead.")
def data(
    names: tuple[str, ...], num_steps: int, data_root: Path | None, download: tuple[str, ...], as_json: bool
) -> None:
    """List the data sets, or describe some, data of your own among them: shape, classes, where they were found,
    examples, size, and what is missing."""
    from snn_probe.data import DATASETS, fetch
    from snn_probe.own import allowing
    from snn_probe.results import strict_json

    _check_names(names, download)
    for name in download:
        fetch(name, root=data_root)
    with allowing(names):
        wanted = dict.fromkeys((*names, *download) if names else DATASETS)
        found = [_survey(name, num_steps, data_root) for name in wanted]
    if as_json:
        click.echo(strict_json(list(map(_document, found))))
        return
    rows = [("name", "kind", "input", "classes", "train", "validation", "test", "size", "found"), *map(_row, found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for problem in dict.fromkeys(one.problem for one in found if one.problem):
        click.echo(f"{', '.join(one.info.name for one in found if one.problem == problem)}: {problem}")


def _check_names(names: tuple[str, ...], download: tuple[str, ...]) -> None:
    from snn_probe.data import DATASETS, named
    from snn_probe.own import is_own

    for name in (*names, *download):
        if name not in DATASETS and (name in download or not (is_own(name) or named(name)[1])):
            more = "" if name in download else ", MODULE:FACTORY of your own, or a folder of images or frames by class"
            raise click.UsageError(f"{name!r} is no data set here; give one of {', '.join(DATASETS)}{more}.")


def _survey(name: str, num_steps: int, data_root: Path | None) -> Any:
    from snn_probe.data import named
    from snn_probe.data.inventory import survey, survey_folder, survey_own
    from snn_probe.own import is_own

    if is_own(name):
        return survey_own(name, num_steps, data_root)
    known, folder = named(name)
    return survey(name, data_root) if folder is None else survey_folder(known, folder)


def _document(found: Any) -> dict[str, Any]:
    """A data set for machines; null for what is not known."""
    info = found.info
    return {
        "name": info.name,
        "kind": "events" if info.temporal else "images",
        "input_shape": info.input_shape if all(info.input_shape) else None,
        "num_classes": info.num_classes or None,
        "counts": dict(zip(("train", "validation", "test"), found.counts, strict=True)) if found.counts else None,
        "num_bytes": found.num_bytes,
        "place": found.place,
        "problem": found.problem,
    }


def _row(found: Any) -> tuple[str, ...]:
    """One line of the table; a dash for what is not known."""
    info = found.info
    counts = ("-",) * 3 if found.counts is None else tuple(f"{count:,}" for count in found.counts)
    place = found.place or "not found"
    return (
        info.name,
        "events" if info.temporal else "images",
        "x".join(map(str, info.input_shape)) if all(info.input_shape) else "-",
        str(info.num_classes or "-"),
        *counts,
        _bytes(found.num_bytes) if found.num_bytes else "-",
        f"{place} (see below)" if found.place and found.problem else place,
    )


def _bytes(number: float) -> str:
    """A size in powers of 1000, three digits."""
    for unit in ("B", "kB", "MB"):
        if number < 999.5:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} GB"
