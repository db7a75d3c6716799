"""`frame-folder`: event streams as frames in files, `train/CLASS/*.npy` beside `test/CLASS/` or `val/CLASS/`.

A file holds one example, frames (T, C, H, W): `.npy`, or `.npz` with the array `frames` (as SpikingJelly writes it) or
one array alone. Read without pickle.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from snn_probe.machine.files import shortened

from .arrays import FAULTS, read_array
from .catalog import DatasetInfo
from .examples import Split
from .folders import chosen_classes, class_folders, split_files
from .sources import checked_count

NAME = "frame-folder"
EXTENSIONS = (".npy", ".npz")


def holds_frames(folder: Path) -> bool:
    """Whether the first file of the first training class is one of frames."""
    try:
        first = folder / "train" / class_folders(folder / "train")[0]
        files = sorted(path for path in first.rglob("*") if path.is_file() and not path.name.startswith("."))
    except (ValueError, OSError):
        return False
    return bool(files) and files[0].suffix.lower() in EXTENSIONS


def describe_frames(folder: Path, classes: Sequence[str] | None) -> DatasetInfo:
    """Classes, and the shape of the first training example. Raises ValueError for a folder without frames."""
    named = chosen_classes(folder, classes, imagenet=False)
    files, _ = split_files(folder, "train", named, imagenet=False, extensions=EXTENSIONS)
    shape = _frames(files[0]).shape[1:]
    return DatasetInfo(NAME, shape, len(named), True, named, "your own frames")


def load_frames(folder: Path, split: str, info: DatasetInfo, num_steps: int | None, num_examples: int | None) -> Split:
    """A split, or its first `num_examples`. Raises ValueError for a file that is damaged or of another shape."""
    files, labels = split_files(folder, split, info.classes, imagenet=False, extensions=EXTENSIONS)
    count = len(files) if num_examples is None else checked_count(num_examples, len(files), NAME, split)
    stored = None
    for number, file in enumerate(files[:count]):
        frames = _frames(file)
        if frames.shape != (num_steps, *info.input_shape):
            raise ValueError(
                f"{file} has frames {frames.shape}, but num_steps is {num_steps} and frames are {info.input_shape}; give "
                f"--num-steps {len(frames)}, or make all files alike."
            )
        if stored is None:
            stored = torch.empty((count, *frames.shape), dtype=torch.from_numpy(frames).dtype)
        stored[number] = torch.from_numpy(frames)
    assert stored is not None  # no split is empty
    return Split(stored, torch.from_numpy(labels[:count]))


def _frames(file: str) -> np.ndarray:
    """(T, C, H, W), float32."""
    try:
        found = read_array(Path(file), "frames")
    except (ValueError, OSError, *FAULTS) as error:
        said = shortened(str(error)).rstrip(".").strip("'")
        raise ValueError(f"{file} cannot be read as frames ({said}); write it again with numpy.save.") from None
    if found.ndim != 4 or 0 in found.shape or found.dtype.kind not in "buif":
        raise ValueError(f"{file} holds {found.dtype}{found.shape}; frames are numbers (T, C, H, W).")
    with np.errstate(over="ignore"):
        frames = found.astype(np.float32)
    if not np.isfinite(frames).all():
        raise ValueError(f"{file} holds NaN or infinity; write it again, or delete it.")
    return frames
