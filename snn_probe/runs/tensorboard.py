"""The metrics of a run for TensorBoard, epoch by epoch while it trains or afterwards.

>>> for checkpoint in to_tensorboard(train(config, folder="run"), "run/tensorboard", run="run"): ...
"""

import csv
import math
import os
from collections.abc import Iterable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

from snn_probe.checkpoint import Checkpoint
from snn_probe.distributed import rank
from snn_probe.machine.files import read_text
from snn_probe.runs.run_folder import RunFolder

__all__ = ["tag_of", "to_tensorboard"]


def to_tensorboard(
    checkpoints: Iterable[Checkpoint], folder: str | os.PathLike[str], *, run: str | Path | None = None
) -> Iterator[Checkpoint]:
    """Pass on the checkpoints that ``train`` yields; write the metrics of each to TensorBoard's files in ``folder``.

    The step is the epoch; :func:`tag_of` says what each number is called; one that was not finite is NaN. ``run`` is the
    run's folder, if it has one: epochs of its metrics.csv that ``folder`` lacks are written too, so a resumed run, or
    one that was trained without TensorBoard before, is whole, and no epoch is there twice. Of the processes that
    torchrun started, the first alone writes.

    Raises RuntimeError without the package tensorboard, ValueError if ``folder`` has epochs that are not this
    run's, both at once and not when the first epoch is done.
    """
    _tensorboard()
    if rank() != 0:
        return iter(checkpoints)
    past = _rows(run)
    steps = _steps(folder)
    foreign = steps - {row["epoch"] for row in past}
    if foreign:
        raise ValueError(
            f"{os.fspath(folder)} holds epoch {min(foreign)} of another run; give another folder for TensorBoard."
        )
    return _passed_on(iter(checkpoints), past, Path(folder), steps)


def tag_of(name: str) -> str:
    """TensorBoard's tag of a column of metrics.csv: loss/train, accuracy/test, training/learning_rate, ..."""
    split, _, kind = name.rpartition("_")
    if kind in ("loss", "accuracy"):
        return f"{kind}/{split}"
    return "loss/objective" if name == "objective" else f"training/{name}"


def _passed_on(
    checkpoints: Iterator[Checkpoint], past: list[dict[str, Any]], folder: Path, steps: set[int]
) -> Iterator[Checkpoint]:
    writer = _tensorboard()(str(folder))
    try:
        for checkpoint in checkpoints:
            earlier = [row for row in past if row["epoch"] < checkpoint.epoch]
            _write(writer, [*earlier, checkpoint.card["metrics"]], steps)
            yield checkpoint
        _write(writer, past, steps)
    finally:
        writer.close()


def _write(writer: Any, rows: list[dict[str, Any]], steps: set[int]) -> None:
    """Write the rows whose epoch is not in ``steps``; add it."""
    for row in rows:
        if row["epoch"] not in steps:
            for name, value in row.items():
                if name != "epoch":
                    writer.add_scalar(tag_of(name), math.nan if value is None else value, row["epoch"])
            steps.add(row["epoch"])
    writer.flush()


def _rows(run: str | Path | None) -> list[dict[str, Any]]:
    """The rows of a run's metrics.csv; none where there is no such file."""
    if run is None or not RunFolder(run).metrics.exists():
        return []
    path = RunFolder(run).metrics
    try:
        rows = [
            {name: int(text) if name == "epoch" else float(text) if text else None for name, text in row.items()}
            for row in csv.DictReader(StringIO(read_text(path), newline=""))
        ]
        if not all("epoch" in row for row in rows):
            raise ValueError
    except (ValueError, TypeError, csv.Error):
        raise ValueError(f"{path} is no table of a run's metrics; restore it, or resume the run.") from None
    return rows


def _steps(folder: str | os.PathLike[str]) -> set[int]:
    """The steps that the event files in a folder hold."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(os.fspath(folder), size_guidance={"scalars": 0})
    if Path(folder).is_dir():
        events.Reload()
    return {event.step for tag in events.Tags()["scalars"] for event in events.Scalars(tag)}


def _tensorboard() -> Any:
    """The class that writes event files."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise RuntimeError("The package tensorboard is missing; install it: pip install tensorboard") from None
    return SummaryWriter
