"""``snnprobe report``."""

from pathlib import Path

import click

from snn_probe.commands.kinds import SVG, WIDTH, formats


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@WIDTH
@SVG
def report(folder: Path, width: float, svg: bool) -> None:
    """Judge, draw and report a study again from its stored results; nothing is measured."""
    from snn_probe.studies.conclusion import conclude
    from snn_probe.study import tables

    for path in conclude(tables(folder), folder, width=width, formats=formats(svg)):
        click.echo(path)
