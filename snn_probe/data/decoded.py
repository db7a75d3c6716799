"""Small images decoded once: a cache file of uint8 pixels in the user's cache folder, keyed by the image files."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from snn_probe.machine.files import write_atomically
from snn_probe.machine.progress import Progress

from .arrays import FAULTS
from .streams import StreamSplit

CHUNK = 512  # images that one worker decodes at a time
VERSION = 1  # of how pictures become pixels: a new number makes old cache files useless


def pixels(split: StreamSplit, num_examples: int) -> Tensor:
    """The first `num_examples` images of the split as uint8 (N, 3, size, size), not augmented.

    All of them are decoded once and kept in a file (.npy, read without pickle) under `folder()`; its name is a digest
    of every image's path, length and time of change, so it is never out of date. A few are decoded without the file.
    A cache that cannot be written or read is left alone.
    """
    shape = (len(split), 3, split.size, split.size)
    path = folder() / f"{_digest(split)}.npy"
    if (kept := _kept(path, shape)) is not None:
        return torch.from_numpy(kept[:num_examples].copy())
    found = torch.empty((num_examples, *shape[1:]), dtype=torch.uint8)
    order = torch.arange(num_examples).split(CHUNK)
    parts = split.decoded(order)
    for indices, part in zip(Progress(order, "decoding images"), parts, strict=True):
        found[indices[0] : indices[-1] + 1] = part
    if num_examples == len(split):
        with contextlib.suppress(OSError):
            write_atomically(path, lambda file: np.save(file, found.numpy(), allow_pickle=False))
    return found


def folder() -> Path:
    """`snn_probe/images` in $XDG_CACHE_HOME or ~/.cache. It may be deleted at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "snn_probe" / "images"


def _digest(split: StreamSplit) -> str:
    digest = hashlib.sha256(f"{VERSION} {split.size}\n".encode())
    for file in split.files:
        try:
            stat = os.stat(file)
        except OSError as error:
            raise ValueError(f"{file} cannot be read ({error.strerror}); put it back.") from None
        digest.update(f"{os.path.abspath(file)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _kept(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    if not path.is_file():
        return None
    try:
        kept = np.lib.format.open_memmap(path, mode="r")  # of .npy alone, and it unpickles nothing
    except (ValueError, OSError, *FAULTS):  # none yet, or damaged: then the images are decoded again
        return None
    return kept if isinstance(kept, np.ndarray) and kept.shape == shape and kept.dtype == np.uint8 else None
