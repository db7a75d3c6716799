"""Memory that is freed and soon needed again stays with the process, instead of going back to the system in between.

By itself the C library hands back what lies free at the end of its heap, again and again, and arrays above a limit that
it raises as it goes. Every batch then takes fresh pages, which the system has to find and to fill with zeros.
"""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # parameters of mallopt, from malloc.h of the GNU C library
_KEPT = 64 << 20  # bytes that may lie free outside the context
_LARGEST = 32 << 20  # an array that is not given pages of its own, at the most
_DURING = {_MMAP_THRESHOLD: _LARGEST, _TRIM_THRESHOLD: -1, _MMAP_MAX: 0}  # never handed back, no pages of its own
_AFTER = {_MMAP_THRESHOLD: _LARGEST, _TRIM_THRESHOLD: _KEPT, _MMAP_MAX: 1 << 16}  # where large arrays take them

_within = 0  # how many such contexts this process is in


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Within this context memory that is freed stays with the process.

    It concerns the whole process, and the GNU C library alone: elsewhere nothing happens. At the end what lies free goes
    back if it is more than 64 MB; afterwards the library hands back what is free at the end of its heap beyond that, as it
    does by itself once large arrays were freed.
    """
    global _within
    _within += 1
    try:
        if _within == 1:
            _set(_DURING)
        yield
    finally:
        _within -= 1
        if not _within:
            _set(_AFTER)
            if _lying_free() > _KEPT:
                hand_back()


def hand_back() -> None:
    """Give memory that lies free in this process back to the system, so that what it holds is what it uses."""
    if _mallopt() is not None:
        ctypes.CDLL(None).malloc_trim(0)


class _Counts(ctypes.Structure):
    """What mallinfo2 returns."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
    ))  # fmt: skip


def _lying_free() -> int:
    """Bytes that were freed and are still the process's; 0 where the library does not say."""
    if _mallopt() is None or not hasattr(library := ctypes.CDLL(None), "mallinfo2"):
        return 0
    library.mallinfo2.restype = _Counts
    return library.mallinfo2().fordblks


def _set(options: dict[int, int]) -> None:
    if (mallopt := _mallopt()) is not None:
        for name, value in options.items():
            mallopt(name, value)


@cache
def _mallopt() -> Callable[[int, int], int] | None:
    """The function of the GNU C library; None where the process has another."""
    try:
        library = ctypes.CDLL(None)
        return library.mallopt if library.gnu_get_libc_version else None
    except (AttributeError, OSError, TypeError):
        return None
