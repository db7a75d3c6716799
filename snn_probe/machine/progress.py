"""Progress: a bar on stderr if that is a terminal, else log records, the first as soon as it is known that much is left."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

from snn_probe.machine.interrupts import check

_SECONDS_BETWEEN_RECORDS = 30.0
_FEW_UNITS, _FEW_SECONDS = 3, 3.0  # after both of these the first record may come, if much is left

_log = logging.getLogger(__name__)


class Remaining:
    """``iterable`` with log records of how far each pass over it is and how long the rest will take: the first after a
    few items and seconds if more than 30 s are left, then one every 30 s.

    The first item counts only until there are three, since it warms up.
    """

    def __init__(self, iterable: Iterable[Any], label: str, *, total: int | None = None):
        self.iterable, self.label = iterable, label
        self.total = total if total is not None else len(iterable)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return self.total

    def __iter__(self) -> Iterator[Any]:
        began = warm = said = time.monotonic()
        for done, item in enumerate(self.iterable):
            now = time.monotonic()
            warm = now if done == 1 else warm
            left = (now - warm) / (done - 1) if done >= _FEW_UNITS else (now - began) / max(done, 1)
            left *= self.total - done
            early = said == began and done >= _FEW_UNITS and now - began >= _FEW_SECONDS
            if done and (now - said >= _SECONDS_BETWEEN_RECORDS or (early and left > _SECONDS_BETWEEN_RECORDS)):
                _log.info("%s", f"{self.label}: {done}/{self.total}, about {duration(left)} left")
                said = now
            yield item


class Progress(Remaining):
    """The same, but with a bar on stderr instead of the records if that is a terminal; and before each item it is looked
    whether a signal has asked for the end (:mod:`snn_probe.machine.interrupts`)."""

    def __iter__(self) -> Iterator[Any]:
        for item in self._shown():
            check()
            yield item

    def _shown(self) -> Iterator[Any]:
        if sys.stderr.isatty():
            from tqdm import tqdm

            yield from tqdm(self.iterable, desc=self.label, total=self.total, leave=False, file=sys.stderr)
        else:
            yield from super().__iter__()


def duration(seconds: float) -> str:
    """Seconds, minutes or hours in words."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 0.95 else f"{seconds:.1g} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
