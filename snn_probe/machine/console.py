"""What the library says while a command runs, on stderr: its log records and its warnings, a sentence each."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click


@contextmanager
def console(level: int) -> Iterator[None]:
    """Show the package's log records from ``level`` on, and warnings for users, until the context ends."""
    logger, shown_before = logging.getLogger("snn_probe"), warnings.showwarning
    handler, level_before = _Stderr(), logger.level
    logger.addHandler(handler)
    logger.setLevel(level)

    def show(message: Any, category: type[Warning], *place: Any, **more: Any) -> None:
        if category is UserWarning:
            _say(f"Warning: {message}")
        else:
            shown_before(message, category, *place, **more)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = shown_before
        logger.setLevel(level_before)
        logger.removeHandler(handler)


@contextmanager
def quieter(name: str) -> Iterator[None]:
    """Within this context the module ``name`` logs its warnings only."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


class _Stderr(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        try:
            _say(("Warning: " if record.levelno >= logging.WARNING else "") + self.format(record))
        except Exception:
            self.handleError(record)


def _say(text: str) -> None:
    """On stderr, which may be another one than when the command began; of several processes the first speaks."""
    if os.environ.get("RANK", "0") == "0":
        click.echo(text, err=True)
