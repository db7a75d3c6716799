"""Work in batches that finds by itself how many examples the memory holds at a time."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")

_SAID = ("out of memory", "not enough memory", "can't allocate memory", "OutOfMemoryError")

_log = logging.getLogger(__name__)


def halving(work: Callable[[int], T], batch_size: int, what: str) -> T:
    """``work(batch_size)``, and where the memory does not hold that, ``work`` with half as many examples at a time, and
    so on down to 1, each said in the log. ``work`` must give the same answer for every size.

    Raises what ``work`` raises for other reasons, or with one example at a time.
    """
    while True:
        try:
            return work(batch_size)
        except (RuntimeError, MemoryError) as error:
            if batch_size <= 1 or not out_of_memory(error):
                raise
        half = batch_size // 2  # out here, where the error holds on to nothing any more
        _log.warning(
            "%s", f"{what}: the memory does not hold {batch_size} examples at a time; {half} give the same answer."
        )
        batch_size = half
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def out_of_memory(error: BaseException) -> bool:
    """Whether the error, also one that another process announced, says that memory was short."""
    short = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return short or any(said in str(error) for said in _SAID)
