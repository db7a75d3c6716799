"""What is on the disk of each data set: for a listing, so nothing that is missing or damaged is an error."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import digits, folders, frame_folder, neuromorphic, own, sources
from .catalog import DATASETS, EMBEDDED, FOLDERS, DatasetInfo
from .places import data_root, find


@dataclass(frozen=True)
class Found:
    """A data set as it is on the disk: `info` (of image folders with their classes and size, if they are there),
    `place` (None if it is not there), `counts` of examples per split, `num_bytes`, and what is wrong, or None."""

    info: DatasetInfo
    place: str | None = None
    counts: tuple[int, ...] | None = None
    num_bytes: int = 0
    problem: str | None = None


def survey_own(name: str, num_steps: int, root: str | os.PathLike[str] | None) -> Found:
    """A set of the user's own, made for `num_steps`. Raises ValueError for a factory that breaks its promise."""
    made = own.made(name, num_steps, None if root is None else os.fspath(root))
    counts = tuple(len(made[1][split]) if split in made[1] else 0 for split in digits.SPLITS)
    return Found(made[0], "your own", counts, sum(split.stored.nbytes for split in made[1].values()))


def survey_folder(name: str, folder: Path) -> Found:
    """`image-folder` or `frame-folder` in this folder. Raises ValueError where it is none."""
    if name != frame_folder.NAME:
        found = survey(name, folder)
        if found.problem:
            raise ValueError(f"{found.problem.rstrip('.')}.")
        return found
    info = frame_folder.describe_frames(folder, None)
    kinds: dict[str, Any] = dict(imagenet=False, extensions=frame_folder.EXTENSIONS)
    counts = tuple(len(folders.split_files(folder, split, info.classes, **kinds)[0]) for split in digits.SPLITS)
    return Found(info, str(folder), counts, _size(folder))


def survey(name: str, root: str | os.PathLike[str] | None) -> Found:
    """Looks for the data set below `root`. CIFAR's batches are read, of other sets the names of the files."""
    found = Found(DATASETS[name])
    if name in EMBEDDED:
        counts = tuple(len(digits.split_indices()[split]) for split in digits.SPLITS)
        return replace(found, place="comes with scikit-learn", counts=counts)
    try:
        if found.info.temporal:
            return _events(found, data_root(root))
        folder = find(name, data_root(root))
        found = replace(found, place=str(folder), num_bytes=_size(folder))
        return _folder(found, folder, data_root(root)) if name in FOLDERS else _cifar(found, folder)
    except (ValueError, OSError) as error:
        return replace(found, problem=" ".join(str(error).split()))


def _cifar(found: Found, folder: Path) -> Found:
    counts = tuple(len(sources.load_cifar(found.info, split, folder)) for split in digits.SPLITS)
    return replace(found, counts=counts)


def _folder(found: Found, folder: Path, root: Path) -> Found:
    """Counts and classes, or the problem beside the place where the folder was found."""
    name = found.info.name
    try:
        info = sources.describe_folder(name, root, None, None)
        files = (folders.split_files(folder, s, info.classes, imagenet=name == "imagenet")[0] for s in digits.SPLITS)
        return replace(found, info=info, counts=tuple(map(len, files)))
    except ValueError as error:
        return replace(found, problem=str(error))


def _events(found: Found, root: Path) -> Found:
    name = found.info.name
    report = neuromorphic.found(name, root)
    counts = None
    if report["recordings"]:
        counts = tuple(len(neuromorphic.labels(name, split, root)) for split in digits.SPLITS)
    return replace(found, place=report["folder"], counts=counts, num_bytes=report["bytes"], problem=report["problem"])


def _size(folder: Path) -> int:
    """Bytes of all files below the folder."""
    return sum(os.lstat(os.path.join(place, name)).st_size for place, _, names in os.walk(folder) for name in names)
