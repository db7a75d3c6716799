"""Arrays in .npy and .npz files of strangers: read without pickle, and never larger than what the file says and holds."""

from __future__ import annotations

import lzma
import math
import os
import stat
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np

MAX_BYTES = 2**28  # of one array
FAULTS = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    KeyError,
    NotImplementedError,  # a compression that Python does not know
    RuntimeError,  # an encrypted member; RecursionError
    struct.error,
    SyntaxError,
    TypeError,
    AttributeError,
    OverflowError,
    MemoryError,
    tokenize.TokenError,
    lzma.LZMAError,
)
"""What damaged files of these kinds make zipfile and numpy raise, besides ValueError and OSError."""


def read_array(path: Path, name: str) -> np.ndarray:
    """The array of a .npy file, or the one called ``name``, or the only one, of a .npz file.

    Raises ValueError, OSError, or one of FAULTS, for what is no ordinary file, is damaged, claims more than it has or than
    MAX_BYTES, or holds Python objects.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError("it is not an ordinary file")
    if not zipfile.is_zipfile(path):
        with open(path, "rb") as file:
            return _array(file, path.stat().st_size)
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        chosen = f"{name}.npy" if f"{name}.npy" in names or len(names) != 1 else names[0]
        member = archive.getinfo(chosen)
        with archive.open(member) as packed:
            return _array(packed, member.file_size)


def _array(file: IO[bytes], size: int) -> np.ndarray:
    """The array in a file of ``size`` bytes."""
    shape, columns_first, dtype = read_header(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are not loaded")
    count = math.prod(shape)
    if any(length < 0 for length in shape) or count * dtype.itemsize != size - file.tell() or size > MAX_BYTES:
        raise ValueError(f"its header says {dtype}{shape}, which its {size} bytes are not")
    found = np.frombuffer(file.read(count * dtype.itemsize), dtype)
    return found.reshape(shape, order="F" if columns_first else "C")


def read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether columns come first, and type, as the header of a .npy file says them."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)
