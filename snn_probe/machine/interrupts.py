"""Ctrl-C, and the signals by which clusters end a job: work stops at its next whole unit, by a second one at once.

A command listens; what it calls says which of its work is one unit. Without a command nothing here changes anything:
a program that uses the library keeps its own signals.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
)  # Windows has no SIGUSR1
_SAME = 0.5  # seconds; torchrun passes on to each process what a terminal has sent to all of them

_units = 0  # contexts of unbroken() that are open
_asked: int | None = None
_when = 0.0


class Interrupted(KeyboardInterrupt):
    """A signal has asked for the end; ``number`` is the signal's, and a process that ends by it exits with 128 more."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def listening(signals: tuple[Any, ...] = SIGNALS) -> Iterator[None]:
    """Within this context these signals raise Interrupted in the main thread: the first at once or, inside
    :func:`unbroken`, at its end; another, half a second later or more, at once wherever it meets the program.

    A signal that was ignored when the context began stays ignored. Does nothing outside the main thread.
    """
    global _asked
    mine = threading.current_thread() is threading.main_thread()
    heard = [number for number in signals if mine and signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, _notice) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if mine:
            _asked = None


@contextmanager
def unbroken() -> Iterator[None]:
    """What is done within this context is one unit: a first signal waits until it ends."""
    global _units
    _units += 1
    try:
        yield
    finally:
        _units -= 1
    check()


def asked() -> int | None:
    """The signal that has asked for the end; None while none has."""
    return _asked


def check() -> None:
    """Raise Interrupted if a signal has asked for the end and nothing unbroken is going on."""
    if _asked is not None and not _units:
        raise Interrupted(_asked)


def _notice(number: int, frame: object) -> None:
    global _asked, _when
    now = time.monotonic()
    first = _asked is None
    if not first and now - _when < _SAME:
        return
    _asked, _when = number, now
    if not (first and _units):
        raise Interrupted(number)
