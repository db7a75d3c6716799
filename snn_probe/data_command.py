"""`snnprobe data`: which data sets there are, what is found where, and downloading."""

from pathlib import Path
from typing import Any

import click

from snn_probe.completion import DATASETS as SETS
from snn_probe.completion import one_of


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=one_of(*SETS))
@click.option("--data-root", type=click.Path(path_type=Path), help="The folder of the data sets.  [$SNNPROBE_DATA]")
@click.option("--download", multiple=True, metavar="NAME", shell_complete=one_of(*SETS),
              help="Download this set first; may be repeated.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON instead.")
def data(names: tuple[str, ...], data_root: Path | None, download: tuple[str, ...], as_json: bool) -> None:
    """List the data sets: shape, classes, where they were found, examples, size, and what is missing."""
    from snn_probe.data import DATASETS, fetch
    from snn_probe.data.inventory import survey
    from snn_probe.results import strict_json

    for name in (*names, *download):
        if name not in DATASETS:
            raise click.UsageError(f"{name!r} is no data set here; give one of {', '.join(DATASETS)}.")
    for name in download:
        fetch(name, root=data_root)
    found = [survey(name, data_root) for name in dict.fromkeys((*names, *download) if names else DATASETS)]
    if as_json:
        click.echo(strict_json(list(map(_document, found))))
        return
    rows = [("name", "kind", "input", "classes", "train", "validation", "test", "size", "found"), *map(_row, found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for problem in dict.fromkeys(one.problem for one in found if one.problem):
        click.echo(f"{', '.join(one.info.name for one in found if one.problem == problem)}: {problem}")


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
