"""A folder for one process at a time."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

NAME = ".lock"
_PATIENCE = 5.0  # seconds that the processes of a killed owner may take to end


@contextmanager
def locked(folder: str | Path) -> Iterator[int]:
    """Hold ``folder`` (made if missing) until the context ends; gives the descriptor of the lock.

    The lock is the operating system's (flock), so it ends with its owner, and with the processes that hold the
    descriptor too. The file .lock says who the owner is; it stays, empty. Raises RuntimeError, one sentence, where
    another process holds the folder.
    """
    place = Path(folder) / NAME
    place.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(place, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _take(descriptor, place)
        said = (
            f"process {os.getpid()} on {socket.gethostname()} since {datetime.now(UTC).isoformat(timespec='seconds')}"
        )
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, said.encode(), 0)
        try:
            yield descriptor
        finally:
            os.truncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _take(descriptor: int, place: Path) -> None:
    import fcntl  # not on Windows

    until = time.monotonic() + _PATIENCE
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(descriptor, 200, 0).decode(errors="replace")
            if time.monotonic() > until or not _gone(owner):
                raise RuntimeError(
                    f"{place.parent} is being worked on by {owner or 'another process'}; wait until it is done, "
                    "stop it, or choose another folder with --out."
                ) from None
            time.sleep(0.05)


def _gone(owner: str) -> bool:
    """Whether the owner was a process of this machine that has ended: then only what it started still holds on."""
    words = owner.split()
    if len(words) < 4 or words[3] != socket.gethostname() or not words[1].isdigit():
        return False
    try:
        os.kill(int(words[1]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
