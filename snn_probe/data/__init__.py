"""Data sets by name: `load("digits", "train")` gives a split, `describe` what a network must know of it.

>>> split = load("cifar10", "train", root="/data", num_examples=1000)
>>> for inputs, labels in batches(split, batch_size=32): ...                       # for probes: in order, unchanged
>>> for inputs, labels in split.feed(order, augment_seed=7, device="cuda"): ...    # for training

Two sets are made from digits that come with scikit-learn; the others lie below a data root, in the form in which they
are published. Nothing is downloaded unless it is asked for. Every set has the splits train, validation and test:
validation is cut from train by a fixed seed, test is the official one. A name with a colon, `package.module:factory`,
is a set of the user's own (see `own`), `frame-folder` one of frames in files (see `frame_folder`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from snn_probe.own import is_own

from . import digits, events, frame_folder, neuromorphic, sources
from .augment import Shift
from .catalog import DATASETS, EMBEDDED, FOLDERS, DatasetInfo
from .examples import Batches, Examples, Split, batches
from .folders import read_classes
from .identity import fingerprint
from .own import describe_own, load_own
from .places import data_root, find_or_download

__all__ = [
    "DATASETS", "FOLDERS", "SPLITS", "Batches", "DatasetInfo", "Examples", "Split", "batches", "describe", "exists", "fetch",
    "fingerprint", "load", "named", "read_classes",
]  # fmt: skip

SPLITS = digits.SPLITS
MAX_SHIFT = 1  # pixels, on 8x8 digits and 16x16 event frames
FRAMES = frame_folder.NAME
MAX_SIZE = 1024  # pixels on a side


def exists(name: str) -> bool:
    """Whether this can be the name of a data set: one of `DATASETS`, `frame-folder`, or package.module:factory."""
    return name in DATASETS or name == frame_folder.NAME or is_own(name)


def named(text: str) -> tuple[str, Path | None]:
    """The name of the set that `text` says, and its root where it is a folder: of images or of frames by class."""
    folder = Path(text).expanduser()
    if exists(text) or not folder.is_dir():
        return text, None
    return frame_folder.NAME if frame_folder.holds_frames(folder) else "image-folder", folder


def describe(
    name: str,
    *,
    root: str | os.PathLike[str] | None = None,
    image_size: int | None = None,
    classes: Sequence[str] | None = None,
    num_steps: int | None = None,
) -> DatasetInfo:
    """The data set as it will be loaded: its input shape, classes and kind.

    The classes of `imagenet` and `image-folder` are the folders below `root` (default: the environment variable
    SNNPROBE_DATA), or those of them that `classes` names, in that order; other sets are not looked for on the disk.
    `image_size` is the side of the square images or frames; the default is the set's own, for `image-folder` the
    shorter side of the first training image, 224 at most. `num_steps` is for a factory of the user's own that takes it.

    Raises ValueError for an unknown `name`, an `image_size` beyond 1..1024 or for the two embedded sets, `classes` for
    a set whose classes are fixed or that the disk does not have, and folders that are missing.
    """
    if is_own(name) or name == frame_folder.NAME:
        return _describe_other(name, root, image_size, classes, num_steps)
    if name not in DATASETS:
        raise ValueError(f"name is {name!r}, which is no data set here; choose one of {', '.join(DATASETS)}.")
    info = DATASETS[name]
    if image_size is not None and name in EMBEDDED:
        side = info.input_shape[-1]
        raise ValueError(f"image_size is {image_size}, but {name} is always {side}x{side} pixels; leave it out.")
    whole = isinstance(image_size, int) and not isinstance(image_size, bool)
    if image_size is not None and not (whole and 1 <= image_size <= MAX_SIZE):
        raise ValueError(f"image_size is {image_size!r}; give a whole number of pixels from 1 to {MAX_SIZE}.")
    if name in FOLDERS:
        return sources.describe_folder(name, data_root(root), image_size, classes)
    if classes is not None:
        raise ValueError(f"classes is given, but those of {name} are fixed; it is for {' and '.join(FOLDERS)} alone.")
    if image_size is None:
        return info
    return replace(info, input_shape=(info.input_shape[0], image_size, image_size))


def load(
    name: str,
    split: str,
    *,
    num_steps: int | None = None,
    num_examples: int | None = None,
    root: str | os.PathLike[str] | None = None,
    image_size: int | None = None,
    classes: Sequence[str] | None = None,
    download: bool = False,
) -> Examples:
    """The named split of a data set; writing into its tensors changes no later `load`.

    `num_steps` is T, the number of frames an event stream is cut into; static images ignore it.
    `num_examples` takes the first so many: examples are stored in turn over the classes, so the first N are nearly
    balanced (each class as often as any other, give or take one, until the rarest class is used up).
    `root`, `image_size` and `classes` are as for `describe`. `download` fetches what is missing where that is allowed.

    Raises ValueError for what `describe` refuses, an unknown `split`, a `num_steps` that is missing, below 1 or finer
    than the stream, a `num_examples` below 1 or above the size of the split, and data that are missing or damaged.
    """
    if exists(name) and split not in SPLITS:
        raise ValueError(f"split is {split!r}, which {name} does not have; choose one of {', '.join(SPLITS)}.")
    folder = find_or_download(name, data_root(root), download=download) if name in FOLDERS else None
    info = describe(name, root=root, image_size=image_size, classes=classes, num_steps=num_steps)
    if info.temporal and (num_steps is None or num_steps < 1):
        limit = f"to {events.NUM_MOMENTS}" if name == "event-digits" else "up"
        raise ValueError(
            f"num_steps is {num_steps}, but {name} holds event streams that must be cut into frames; "
            f"give the number of frames, a whole number from 1 {limit}."
        )
    if folder is not None:
        return sources.load_folder(info, split, folder, num_examples)
    if name == frame_folder.NAME:
        return frame_folder.load_frames(data_root(root), split, info, num_steps, num_examples)
    if is_own(name):
        found = load_own(name, split, num_steps, _text(root))
    elif name == "digits":
        found = Split(*digits.read(split), augmentation=Shift(MAX_SHIFT))
    elif name == "event-digits":
        found = Split(*events.read(split, num_steps or 0), augmentation=Shift(MAX_SHIFT))
    elif info.temporal:
        found = sources.load_events(info, split, data_root(root, made=download), num_steps or 0, download)
    else:
        found = sources.load_cifar(
            info, split, find_or_download(name, data_root(root, made=download), download=download)
        )
    if num_examples is None:
        return found
    count = sources.checked_count(num_examples, len(found), name, split)
    return replace(found, stored=found.stored[:count].clone(), labels=found.labels[:count].clone())


def _describe_other(name, root, image_size, classes, num_steps) -> DatasetInfo:
    """A set that is not in DATASETS: frames in files, or what a factory of the user's own makes."""
    if image_size is not None:
        raise ValueError(
            f"image_size is {image_size!r}, but the frames or inputs of {name} are as they are; leave it out."
        )
    if name == frame_folder.NAME:
        return frame_folder.describe_frames(data_root(root), classes)
    if classes is not None:
        raise ValueError(f"classes is given, but those of {name} are its own; leave it out.")
    return describe_own(name, num_steps, _text(root))


def _text(root: str | os.PathLike[str] | None) -> str | None:
    return None if root is None else os.fspath(root)


def fetch(name: str, *, root: str | os.PathLike[str] | None = None) -> None:
    """Download a data set into `root`, unless it is there already.

    Raises ValueError, or FileNotFoundError for event sets, where a program may not download it or the download fails.
    """
    if name in EMBEDDED:
        raise ValueError(f"{name} comes with scikit-learn; there is nothing to download.")
    place = data_root(root, made=True)
    if DATASETS[name].temporal:
        neuromorphic._fetch(neuromorphic.SETS[name], place)
    else:
        find_or_download(name, place, download=True)
