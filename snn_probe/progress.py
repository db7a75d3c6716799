"""Progress on stderr: a bar on a terminal, a line now and then elsewhere, nothing on stdout."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

_SECONDS_BETWEEN_LINES = 30.0


class Progress:
    """``iterable`` with progress: each pass over it shows ``label``, how far it is and how long the rest will take."""

    def __init__(self, iterable: Iterable[Any], label: str, *, total: int | None = None):
        self.iterable, self.label = iterable, label
        self.total = total if total is not None else len(iterable)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return self.total

    def __iter__(self) -> Iterator[Any]:
        if sys.stderr.isatty():
            from tqdm import tqdm

            yield from tqdm(self.iterable, desc=self.label, total=self.total, leave=False, file=sys.stderr)
            return
        began = said = time.monotonic()
        for done, item in enumerate(self.iterable):
            now = time.monotonic()
            if done and now - said >= _SECONDS_BETWEEN_LINES:
                left = (now - began) / done * (self.total - done)
                print(f"{self.label}: {done}/{self.total}, about {left:.0f} s left", file=sys.stderr, flush=True)
                said = now
            yield item
