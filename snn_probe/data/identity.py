"""What tells a data set's splits from others, so that a run that goes on can see whether it is shown the same."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import Any

import torch

from .examples import Examples
from .streams import StreamSplit

CHUNK = 1024  # examples that are hashed at a time


def fingerprint(split: Examples) -> tuple[int, str]:
    """The number of examples N and a SHA-256: over labels, and the stored tensor, for a split in memory; over labels,
    and the files' names below their common folder with their lengths in bytes, for one that is read as needed.

    So a folder may be moved, and a file replaced by one of the same name and length in a split that is read as needed
    is not noticed. Raises ValueError for a file that is gone.
    """
    digest = hashlib.sha256(split.labels.contiguous().numpy().tobytes())
    if isinstance(split, StreamSplit):
        _add_files(digest, split.files)
    else:
        stored = split.stored  # type: ignore[attr-defined]  # there are two kinds of splits
        digest.update(f"{stored.dtype} {tuple(stored.shape)}\n".encode())
        for piece in stored.detach().split(CHUNK):
            digest.update(piece.contiguous().reshape(-1).view(torch.uint8).numpy())
    return len(split), digest.hexdigest()


def _add_files(digest: Any, files: Sequence[str]) -> None:
    shared = os.path.commonprefix([min(files), max(files)])  # noqa: RUF071  # as they are written, and so of all
    root = os.path.dirname(shared)
    for file in files:
        try:
            size = os.stat(file).st_size
        except OSError as error:
            raise ValueError(f"{file} cannot be read ({error.strerror}); put it back.") from None
        digest.update(f"{file[len(root) :]}\0{size}\n".encode(errors="surrogateescape"))
