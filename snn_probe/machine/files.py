"""Writing a file so that a crash, a full disk or an interrupt never leaves half of one."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import secrets
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

_log = logging.getLogger(__name__)

LEFTOVERS = ".snn_probe-*.tmp"  # what a process that was killed while it wrote leaves

MOST_TEXT = 2**28  # bytes of a file of text or JSON; the largest result here has a hundredth

_FULL = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_IN_THE_WAY = {errno.ENOTDIR, errno.EEXIST}


def write_atomically(
    path: str | os.PathLike[str],
    content: bytes | str | Callable[[BinaryIO], object],
    *,
    previous: Path | None = None,
) -> None:
    """Write ``content`` to ``path``: afterwards the file is complete, or it is exactly what it was before.

    ``content`` is bytes, a str (written as UTF-8, line ends unchanged) or a function that is given a file open for
    binary writing. The bytes go to a temporary file in the same folder, are forced to the disk, and then take the
    file's name in one step. Missing parent folders are made; a link is followed; the permissions are those of any
    new file (the umask applies). ``previous``, in the same folder, is the name that the file before it then takes.

    Raises TypeError for other contents, and OSError, in one sentence with ``errno`` kept, when the file cannot be
    written. Whatever the function raises is raised unchanged, unless it is an OSError.
    """
    if not (isinstance(content, bytes | str) or callable(content)):
        raise TypeError(
            f"write_atomically: content is a {type(content).__name__}; "
            "give bytes, a str, or a function that takes an open binary file"
        )
    place = Path(os.path.realpath(path))
    try:
        if place.exists() and not place.is_file():  # never replace a folder, or /dev/null
            raise OSError(errno.EISDIR, "not an ordinary file")
        place.parent.mkdir(parents=True, exist_ok=True)
        _replace(place, content, previous)
    except OSError as error:
        raise refused(path, place, error) from error
    _sync_folder(place.parent)
    _log.debug("Wrote %s", os.fspath(path))


def write_if_new(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Like :func:`write_atomically`, but a file that holds just this is left as it is."""
    wanted = content.encode() if isinstance(content, str) else content
    with contextlib.suppress(OSError):
        place = Path(path)
        if place.is_file() and place.stat().st_size == len(wanted) and place.read_bytes() == wanted:
            return
    write_atomically(path, wanted)


def remove_leftovers(folder: Path, *, below: bool = False) -> None:
    """Remove the beginnings of files that killed processes left in ``folder``, and ``below`` it. It must be held
    (:mod:`snn_probe.machine.folder_lock`): those of a process that still writes look alike."""
    for file in sorted(folder.rglob(LEFTOVERS) if below else folder.glob(LEFTOVERS)):
        if file.is_symlink() or not file.is_dir():
            file.unlink(missing_ok=True)


def check_room(folder: Path, needed: int, what: str) -> None:
    """Raise OSError, one sentence, unless the disk of ``folder``, which exists, has ``needed`` bytes left."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        sentence = OSError(
            f"{what} will write about {needed / 1e6:.1f} MB to {folder}, where {free / 1e6:.1f} MB are free; "
            "free some space or choose another folder with --out."
        )
        sentence.errno = errno.ENOSPC
        raise sentence


def refused(path: str | os.PathLike[str], place: Path, error: OSError) -> OSError:
    """``error``, which stood against writing ``path`` at ``place``, in one sentence, with its ``errno``."""
    sentence = OSError(_explain(path, place, error))
    sentence.errno = error.errno
    return sentence


def _replace(place: Path, content: bytes | str | Callable[[BinaryIO], object], previous: Path | None) -> None:
    """Fill a temporary file beside ``place`` and rename it; remove it if anything at all goes wrong."""
    temporary = place.with_name(f".snn_probe-{secrets.token_hex(8)}.tmp")  # short, whatever the length of the name
    try:
        with open(temporary, "xb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        if previous is not None and place.exists():
            os.replace(place, previous)
        os.replace(temporary, place)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    """Force the new name to the disk, where the system can; the file's content is safe by now in any case."""
    with contextlib.suppress(OSError):  # Windows and some network file systems refuse to open or sync a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _explain(path: str | os.PathLike[str], place: Path, error: OSError) -> str:
    """One sentence: which path, what stood against it, what to do."""
    if error.errno == errno.EISDIR:
        reason = "something that is not an ordinary file has this name; choose another file name"
    elif error.errno in _FULL:
        reason = "the disk is full or its quota is used up; free some space or choose another folder"
    elif error.errno in _FORBIDDEN:
        reason = f"the folder {place.parent} is not writable; choose another folder or change its permissions"
    elif error.errno in _IN_THE_WAY:
        reason = f"a file stands where the folder {place.parent} should be; remove it or choose another folder"
    else:
        reason = f"{error.strerror or error}; check the path or choose another folder"
    return f"cannot write {os.fspath(path)}: {reason}"


def read_text(path: str | os.PathLike[str], *, most: int = MOST_TEXT) -> str:
    """The UTF-8 text of an ordinary file of at most ``most`` bytes.

    Raises OSError, with ``strerror``, for what is missing or no ordinary file (a pipe would never end), and
    ValueError for what is larger or no such text.
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not an ordinary file", os.fspath(path))
        content = b"" if found.st_size > most else file.read(most + 1)
    if max(found.st_size, len(content)) > most:
        raise ValueError(f"more than {most} bytes")
    return content.decode("utf-8")


def read_json(path: str | os.PathLike[str], **options: Any) -> Any:
    """What a JSON file says; ``options`` are json.loads'. Raises as :func:`read_text` does."""
    try:
        return json.loads(read_text(path), **options)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def shortened(said: str, most: int = 300) -> str:
    """What a file says, on one line, of at most this many characters: for a message."""
    line = " ".join(said.split())
    return line if len(line) <= most else f"{line[: most - 4]} ..."
