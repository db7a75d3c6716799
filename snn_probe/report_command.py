"""``snnprobe report``."""

from pathlib import Path

import click


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--width", default="6.75", show_default=True, type=click.Choice(("3.25", "6.75")),
              help="Of the figures, in inches: one column of a journal, or two.")  # fmt: skip
@click.option("--svg", is_flag=True, help="Figures as SVG too.")
def report(folder: Path, width: str, svg: bool) -> None:
    """Judge, draw and report a study again from its stored results; nothing is measured."""
    from snn_probe.conclusion import conclude
    from snn_probe.study import tables

    formats = ("pdf", "png", *(["svg"] if svg else []))
    for path in conclude(tables(folder), folder, width=float(width), formats=formats):
        click.echo(path)
