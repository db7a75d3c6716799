"""A folder for one process at a time."""

from __future__ import annotations

import errno
import logging
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from snn_probe.machine.files import refused

NAME = ".lock"
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)  # what a link named .lock leads to is not to be overwritten
_PATIENCE = 5.0  # seconds that the processes of a killed owner may take to end
_NONE = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}  # of file systems without locks

_log = logging.getLogger(__name__)


@contextmanager
def locked(folder: str | Path) -> Iterator[int]:
    """Hold ``folder`` (made if missing) until the context ends; gives the descriptor of the lock.

    The lock is the operating system's (flock), so it ends with its owner, and with the processes that hold the
    descriptor too. The file .lock says who the owner is and since when; it is removed at the end, and one that a killed
    owner has left counts for nothing. Raises RuntimeError, one sentence, where another process holds the folder, and
    OSError where the folder cannot be written. Where the system has no such locks a warning is logged instead.
    """
    place = Path(folder) / NAME
    descriptor = _taken(place)
    try:
        said = (
            f"process {os.getpid()} on {socket.gethostname()} since {datetime.now(UTC).isoformat(timespec='seconds')}"
        )
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, said.encode(), 0)
        try:
            yield descriptor
        finally:
            with suppress(OSError):  # Windows removes no open file
                place.unlink()
    finally:
        os.close(descriptor)


def _taken(place: Path) -> int:
    """A descriptor of the lock's file, which is locked."""
    while True:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(place, os.O_RDWR | os.O_CREAT | _NO_LINK, 0o666)
        except OSError as error:
            raise refused(place, place, error) from error
        try:
            _wait(descriptor, place)
            if _is_still(descriptor, place):  # else the owner before has removed it: lock the new one
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_still(descriptor: int, place: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(place))
    except FileNotFoundError:
        return False


def _wait(descriptor: int, place: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        return _unlocked(place)
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = " ".join(os.pread(descriptor, 200, 0).decode(errors="replace").split())
            if time.monotonic() > until or not _gone(owner):
                raise RuntimeError(
                    f"{place.parent} is being worked on by {owner or 'another process'}; wait until it is done, "
                    "stop it, or choose another folder with --out."
                ) from None
            time.sleep(0.05)
        except OSError as error:
            if error.errno not in _NONE:
                raise refused(place, place, error) from error
            return _unlocked(place)


def _unlocked(place: Path) -> None:
    _log.warning("%s", f"{place.parent} cannot be locked on this system; let no other process work on it.")


def _gone(owner: str) -> bool:
    """Whether the owner was a process of this machine that has ended: then only what it started still holds on."""
    words = owner.split()
    if len(words) < 4 or words[3] != socket.gethostname() or not re.fullmatch(r"[1-9][0-9]{0,8}", words[1]):
        return False
    try:
        os.kill(int(words[1]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
