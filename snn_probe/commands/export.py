"""``snnprobe export``."""

from pathlib import Path

import click


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="RESULT.json...", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="FILE.csv, FILE.h5 or FILE.vts.")
@click.option("--objective", help="Which loss of a landscape goes into .h5, or is the height in .vts.  [the first]")
def export(files: tuple[Path, ...], out: Path, objective: str | None) -> None:
    """Write results for other programs.

    .csv: the table of one or more results. .h5: a landscape in the layout of the loss-landscape program of Li et al.
    (2018). .vts: a landscape for ParaView.
    """
    from snn_probe.results import load
    from snn_probe.tables.exports import SUFFIXES
    from snn_probe.tables.exports import export as write

    if out.suffix not in SUFFIXES:
        raise click.UsageError(f"-o is {str(out)!r}; end it in .csv, .h5 or .vts.")
    write([load(path) for path in files], out, objective=objective)
    click.echo(out)
