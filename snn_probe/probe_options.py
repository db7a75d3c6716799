"""Options that the commands measuring checkpoints share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click


def shared(command: Callable) -> Callable:
    """Arguments and options that every probe command has."""
    for option in reversed(
        (
            click.argument("checkpoints", nargs=-1, required=True, metavar="CKPT...", type=click.Path(path_type=Path)),
            click.option("--split", default="train", show_default=True, type=click.Choice(("train", "validation", "test"))),
            click.option("--num-examples", type=click.IntRange(min=1), help="The first N of the split.  [512, or all if fewer]"),
            click.option("--batch-size", default=64, show_default=True, type=click.IntRange(min=1)),
            click.option("--out", type=click.Path(path_type=Path), help="Folder for results and figures.  [reports/<run>]"),
            click.option("--no-figure", is_flag=True, help="Write the results only."),
            click.option("--data-root", envvar="SNNPROBE_DATA", type=click.Path(path_type=Path),
                         help="Folder of the data sets on the disk.  [$SNNPROBE_DATA]"),
            click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N; full precision."),
            click.option("--json", "as_json", is_flag=True, help="Print the results as JSON instead of a table."),
        )
    ):  # fmt: skip
        command = option(command)
    return command


OBJECTIVE = click.option(
    "--objective",
    default="own",
    show_default=True,
    type=click.Choice(("own", "sdt", "tet", "trt")),
    help="Loss to differentiate: the one the checkpoint was trained with, or another with its default settings.",
)


def objective_of(name: str, job: Any) -> Any:
    """The objective that ``--objective`` names, for this checkpoint."""
    from snn_probe.objectives import OBJECTIVES

    return job.checkpoint.stage.objective() if name == "own" else OBJECTIVES[name]()
