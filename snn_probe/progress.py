"""Progress: a bar on stderr if that is a terminal, else a log record now and then."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

from snn_probe.interrupts import check

_SECONDS_BETWEEN_RECORDS = 30.0

_log = logging.getLogger(__name__)


class Progress:
    """``iterable`` with progress: each pass over it shows ``label``, how far it is and how long the rest will take.

    Before each item it is looked whether a signal has asked for the end (:mod:`snn_probe.interrupts`).
    """

    def __init__(self, iterable: Iterable[Any], label: str, *, total: int | None = None):
        self.iterable, self.label = iterable, label
        self.total = total if total is not None else len(iterable)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return self.total

    def __iter__(self) -> Iterator[Any]:
        for item in self._shown():
            check()
            yield item

    def _shown(self) -> Iterator[Any]:
        if sys.stderr.isatty():
            from tqdm import tqdm

            yield from tqdm(self.iterable, desc=self.label, total=self.total, leave=False, file=sys.stderr)
            return
        began = said = time.monotonic()
        for done, item in enumerate(self.iterable):
            now = time.monotonic()
            if done and now - said >= _SECONDS_BETWEEN_RECORDS:
                left = (now - began) / done * (self.total - done)
                _log.info("%s: %d/%d, about %.0f s left", self.label, done, self.total, left)
                said = now
            yield item
