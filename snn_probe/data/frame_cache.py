"""Arrays of frames kept on the disk: made once, later mapped into memory instead of read.

A file is written whole or not at all and begins with NumPy's own header; nothing is unpickled. Where no file can be
written, for want of permission or of room, the same array is made in memory and nothing is kept.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from snn_probe.machine.files import write_atomically

from .arrays import FAULTS

DTYPE = np.dtype("<f2")
_SPARE = 1.05  # of the file's size must be free on the disk

Pieces = Callable[[], Iterator[tuple[int, np.ndarray]]]


def kept(path: Path, shape: tuple[int, ...], pieces: Pieces) -> np.ndarray:
    """The array of `shape` in `path`, float16, made from `pieces` if the file is not there or not sound.

    `pieces()` yields (index, array of shape[1:]) once for every index below shape[0], in any order. The array that
    comes back can be written to; that changes no file. What `pieces` raises is raised unchanged, unless an OSError.
    """
    frames = _opened(path, shape)
    if frames is None and _room(path, shape):
        try:
            write_atomically(path, lambda file: _write(file, shape, pieces()))
            frames = _opened(path, shape)
        except OSError:
            frames = None
    if frames is None:
        frames = np.empty(shape, DTYPE)
        for index, piece in pieces():
            frames[index] = piece
    return frames


def _opened(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """The array in `path`, mapped; None if there is none of that shape."""
    if not path.is_file() or not math.prod(shape):
        return None
    try:
        frames = np.lib.format.open_memmap(path, mode="c")  # of .npy alone, and it unpickles nothing
    except (ValueError, OSError, *FAULTS):
        return None
    sound = isinstance(frames, np.ndarray) and frames.shape == shape and frames.dtype == DTYPE
    return np.asarray(frames) if sound and frames.flags.c_contiguous else None


def _room(path: Path, shape: tuple[int, ...]) -> bool:
    folder = next(parent for parent in path.parents if parent.exists())
    return 0 < math.prod(shape) * DTYPE.itemsize * _SPARE < shutil.disk_usage(folder).free


def _write(file: BinaryIO, shape: tuple[int, ...], pieces: Iterator[tuple[int, np.ndarray]]) -> None:
    header = {"descr": DTYPE.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    start, size = file.tell(), math.prod(shape[1:]) * DTYPE.itemsize
    for index, piece in pieces:
        file.seek(start + index * size)
        file.write(np.ascontiguousarray(piece, DTYPE).tobytes())
