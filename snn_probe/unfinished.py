"""Slices of the loss that were begun: their points are kept in a file as they come, and not measured again.

What is found in such a file counts only for the same slice: :func:`snn_probe.probes.loss_slice` compares settings,
weights and examples.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from snn_probe.probes import loss_slice
from snn_probe.results import Result, load, save

SUFFIX = ".unfinished"

_log = logging.getLogger(__name__)


def continued(path: Path | None, label: object, *what: Any, **grid: Any) -> Result:
    """``loss_slice(*what, **grid)``, whose points are kept beside ``path``, where its result will be saved, in a file
    that ``label`` tells from those of other slices in the same result; nothing is kept where ``path`` is None."""
    if path is None:
        return loss_slice(*what, **grid)
    file = path.with_name(f"{path.stem}.{label}{SUFFIX}")
    try:
        known = load(file)
    except ValueError:
        known = None
    return or_anew(partial(_kept, file, what, grid), known)


def _kept(file: Path, what: tuple, grid: dict[str, Any], known: Result | None) -> Result:
    return loss_slice(*what, **grid, resume=known, save=partial(save, path=file))


def or_anew(measure: Callable[[Result | None], Result], known: Result | None) -> Result:
    """``measure(known)``, or ``measure(None)`` where ``known`` are points of another slice."""
    try:
        return measure(known)
    except ValueError as error:
        if known is None or not str(error).startswith("resume was measured with other"):
            raise
        count = known.table.groupby(["alpha", "beta"]).ngroups
    _log.warning("%s", f"A slice that was begun here with other settings is given up, with {count} points.")
    return measure(None)


def files(path: Path) -> list[Path]:
    """What is kept beside ``path``."""
    return sorted(file for file in path.parent.glob(f"*{SUFFIX}") if result_of(file) == path)


def result_of(file: Path) -> Path:
    """Where the result of a slice that was begun will be saved."""
    return file.with_name(file.name.removesuffix(SUFFIX).rpartition(".")[0] + ".json")
