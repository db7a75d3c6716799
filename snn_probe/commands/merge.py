"""``snnprobe merge``: the shards of landscapes as results of one process."""

from collections import Counter
from pathlib import Path
from typing import Any

import click

from snn_probe.commands.slice_lines import LEVEL, RADIUS, lines, report_flatness

FEW, SHARDS = 5, 20  # points and shards that a message names


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@LEVEL
@RADIUS
@click.option("--no-figure", is_flag=True, help="Write the results only.")
def merge(folder: Path, level: float, radius: float | None, no_figure: bool) -> None:
    """Join what landscape --shard has written to DIR; name the points that are missing, and how to measure them.

    The results, figures and flatness are those of one process. Nothing is written while points are missing. The shards'
    files stay, and merging again changes nothing.
    """
    from snn_probe.commands.measuring import finish, say
    from snn_probe.results import save
    from snn_probe.tables.shards import fullest, merged, shard_files

    files = shard_files(folder)
    if not files:
        raise ValueError(
            f"{folder} has no file NAME.shard-I-of-N.json; make them with snnprobe landscape --shard I/N --out {folder}."
        )
    read = {name: filter(None, map(fullest, shards.values())) for name, shards in files.items()}
    results = {name: merged(dict(shards)) for name, shards in read.items()}
    _check_holes(folder, results, {name: list(shards) for name, shards in files.items()})
    written = [folder / f"{name}.json" for name in results]
    for path, result in zip(written, results.values(), strict=True):
        if not _holds(path, result):
            save(result, path)
        say(path, result, lines(result))
    finish({"landscape": list(results.values())}, written, folder, no_figure=no_figure, as_json=False)
    report_flatness(list(results.values()), level, radius, folder / "flatness.csv", quiet=False)


def _holds(path: Path, result: Any) -> bool:
    """Whether just this result is stored there."""
    from snn_probe.results import load

    try:
        stored = load(path)
    except ValueError:
        return False
    return (
        (stored.settings, stored.source, stored.environment) == (result.settings, result.source, result.environment)
        and stored.probe == result.probe
        and stored.table.equals(result.table)
    )


def _check_holes(folder: Path, results: dict[str, Any], shards: dict[str, list[tuple[int, int]]]) -> None:
    """ValueError, one sentence, for points that no shard has measured: how many, the first, and the shards they are of."""
    from snn_probe.tables.shards import grid, holes, owners

    lacking, undone = [], set()
    for name, result in results.items():
        points, missing = grid(result.settings), set(holes(result))
        if not missing:
            continue
        first = [f"({alpha:.6g}, {beta:.6g})" for alpha, beta in points if (alpha, beta) in missing]
        lacking.append(f"{len(missing)} of the {len(points)} points of {name}, (alpha, beta) = {_few(first)}")
        count = Counter(count for _, count in shards[name]).most_common(1)[0][0]
        undone |= {(i, count) for at, i in zip(points, owners(points, count), strict=True) if at in missing}
    if lacking:
        again = _few([f"{number}/{count}" for number, count in sorted(undone)], SHARDS)
        raise ValueError(
            f"{folder} lacks {'; and '.join(lacking)}: give the snnprobe landscape command that made it once more with "
            f"--shard {again}, or with --shard 1/1 for all of them, and then merge."
        )


def _few(named: list[str], most: int = FEW) -> str:
    return ", ".join(named[:most] + ["..."] * (len(named) > most))
