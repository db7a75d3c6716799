"""What the commands print of loss slices and of their flatness."""

import itertools
from pathlib import Path
from typing import Any

import click

LEVEL = click.option("--level", default=0.1, show_default=True, type=click.FloatRange(min=0, min_open=True),
                     help="Flatness: how far the loss stays below this above the network's own.")  # fmt: skip
RADIUS = click.option("--radius", type=click.FloatRange(min=0, min_open=True),
                      help="Flatness: mean rise of the loss at this distance.  [half of what the grid reaches]")  # fmt: skip


def lines(result: Any) -> list[str]:
    """What is printed of a slice, or of a part of one."""
    from snn_probe.tables.shards import grid

    count, whole = len(result.table.drop_duplicates(["alpha", "beta"])), len(grid(result.settings))
    if count < whole:
        return [f"  {count} of the grid's {whole} points", f"  along {result.settings['directions']}"]
    found = []
    for name, rows in result.table.groupby("objective", sort=False):
        here = rows[(rows["alpha"] == 0) & (rows["beta"] == 0)]
        centre = "the network itself is not on the grid"
        if len(here):
            centre = f"{here['loss'].iloc[0]:.4g} at the network itself"
        lost = int((~rows["finite"]).sum())
        found.append(f"  {name}: {centre}, {rows['loss'].min():.4g} to {rows['loss'].max():.4g} over {len(rows)} points"
                     + (f", {lost} not finite" if lost else ""))  # fmt: skip
    explained = result.settings.get("explained")
    said = [f"  the plane holds {sum(explained):.1%} of the run's squared distances"] if explained else []
    return [f"  along {result.settings['directions']}", *found, *said]


def report_flatness(results: list[Any], level: float, radius: float | None, file: Path, *, quiet: bool) -> None:
    """Extent below a level and mean rise at a radius, per checkpoint and objective, with the spread over directions."""
    from snn_probe.machine.files import write_if_new
    from snn_probe.tables.flatness import flatness, flatness_spread
    from snn_probe.tables.slices import combine_slices

    table = combine_slices(results)
    if not ((table["alpha"] == 0) & (table["beta"] == 0)).any():
        return  # a grid without the network itself has no flatness
    ends = [axis(table[name]) for name, axis in itertools.product(("alpha", "beta"), (min, max)) if table[name].any()]
    radius = radius if radius is not None else 0.5 * min(map(abs, ends))
    if radius == 0.0:
        return
    found = flatness(table, level=level, radius=radius)
    write_if_new(file, found.to_csv(index=False))
    click.echo(file, err=quiet)
    if quiet:
        return
    spread = flatness_spread(found)
    click.echo(f"flatness (loss up to {level:g} above the network's; rise at {radius:g})")
    for row in spread.itertuples():
        many = f" +- {row.rise_std:.2g} over {row.n} directions" if row.n > 1 else ""
        bound = "" if row.complete else " at least"
        what = "length" if row.dimensions == 1 else "area"
        epoch = "" if row.epoch is None or row.epoch != row.epoch else f" epoch {row.epoch}"
        click.echo(f"  {row.run}{epoch} {row.objective}: {what}{bound} {row.extent:.4g} "
                   f"({row.share:.1%} of the grid), rise {row.rise:.4g}{many}")  # fmt: skip
