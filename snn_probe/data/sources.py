"""Splits of the data sets that lie on a disk: CIFAR's batches, image folders, event recordings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import interpolate

from . import cifar, decoded, folders, neuromorphic
from .augment import CropFlipCutout, RollFlip
from .catalog import DATASETS, IMAGENET_SIZE, DatasetInfo
from .examples import Examples, Normalization, Split
from .images import SMALL, picture_size
from .ordering import balanced, cut
from .places import find
from .streams import StreamSplit

MEMORY_LIMIT = 2 * 2**30  # bytes of a split's pixels: small images that take more are read from their files as needed
# Mean and standard deviation of each channel over the training images; those of ImageNet for folders of any images.
_IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
NORMALIZATIONS = {
    "cifar10": Normalization((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": Normalization((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "imagenet": _IMAGENET,
    "image-folder": _IMAGENET,
}


def small_image_augmentation(size: int) -> CropFlipCutout:
    """Padding 4 and cut 16 at 32x32, as published, and in proportion at other sizes."""
    return CropFlipCutout(padding=size // 8, cut=size // 2)


def event_augmentation(name: str, size: int) -> RollFlip | None:
    """Rolls of up to 5 pixels at 48x48, as published for CIFAR10-DVS, and in proportion at other sizes.

    Only CIFAR10-DVS is mirrored: a mirror makes left gestures right ones, and digits none. N-Caltech101 is left alone,
    as published.
    """
    return None if name == "n-caltech101" else RollFlip(max_roll=round(5 * size / 48), flip=name == "cifar10-dvs")


def load_cifar(info: DatasetInfo, split: str, folder: Path) -> Split:
    """CIFAR-10 or CIFAR-100 from its published batches."""
    layout = cifar.LAYOUTS[info.name]
    names = layout.test if split == "test" else layout.train
    stamps = tuple((p.stat().st_size, p.stat().st_mtime_ns) for p in (folder / n for n in names) if p.is_file())
    images, labels = _batches(folder, info.name, split != "test", stamps)
    order = balanced(labels) if split == "test" else cut(labels)[split]
    if not len(order):
        raise ValueError(f"the {split} split of {folder} is empty; expected at least two images of a class.")
    size = info.input_shape[-1]
    stored = torch.from_numpy(images[order])
    if size != cifar.SIZE:
        stored = interpolate(stored, size=(size, size), mode="bilinear", antialias=True)
    augmentation = small_image_augmentation(size)
    return Split(stored, torch.from_numpy(labels[order]), NORMALIZATIONS[info.name], augmentation)


@lru_cache(maxsize=2)  # train and test: the splits are cut from these
def _batches(folder: Path, name: str, train: bool, stamps: tuple) -> tuple[np.ndarray, np.ndarray]:
    """Read-only images and labels; `stamps` (lengths and times of the files) are there to notice new ones."""
    found = cifar.read(folder, cifar.LAYOUTS[name], train=train)
    for array in found:
        array.setflags(write=False)
    return found


def describe_folder(name: str, root: Path, image_size: int | None, classes: Sequence[str] | None) -> DatasetInfo:
    """Class folders and size of `imagenet` or `image-folder` as they are on the disk."""
    folder = find(name, root)
    found = folders.chosen_classes(folder, classes, imagenet=name == "imagenet")
    size = image_size or (IMAGENET_SIZE if name == "imagenet" else _usual_size(folder / "train", found))
    return replace(DATASETS[name], input_shape=(3, size, size), num_classes=len(found), classes=found)


def _usual_size(folder: Path, classes: Sequence[str]) -> int:
    """The shorter side of the first training image, 224 at most."""
    files, _ = folders.labelled_files(folder, classes[:1])
    if not files:
        raise ValueError(f"{folder / classes[0]} has no images; put images there, or remove the folder.")
    return min(*picture_size(files[0]), IMAGENET_SIZE)


def load_folder(info: DatasetInfo, split: str, folder: Path, num_examples: int | None) -> Examples:
    """`imagenet` or `image-folder`: small images in memory, others from their files when they are needed.

    Raises ValueError for a `num_examples` that the split does not have, before any image is decoded.
    """
    files, labels = folders.split_files(folder, split, info.classes, imagenet=info.name == "imagenet")
    size = info.input_shape[-1]
    small = size <= SMALL
    stream = StreamSplit(
        files,
        torch.from_numpy(labels),
        size,
        NORMALIZATIONS[info.name],
        augmentation=small_image_augmentation(size) if small else None,
        resized_crop=not small,
    )
    count = len(files) if num_examples is None else checked_count(num_examples, len(files), info.name, split)
    if not small or count * 3 * size**2 > MEMORY_LIMIT:
        return replace(stream, files=files[:count], labels=stream.labels[:count].clone())
    kept = decoded.pixels(stream, count)
    return Split(kept, stream.labels[:count].clone(), stream.normalization, stream.augmentation)


def load_events(info: DatasetInfo, split: str, root: Path, num_steps: int, download: bool) -> Split:
    """One of the recorded event sets, as frames."""
    frames, labels = neuromorphic.read(
        info.name,
        split,
        num_steps=num_steps,
        root=root,
        download=download,
        frame_size=(info.input_shape[1], info.input_shape[2]),
    )
    return Split(frames, labels, augmentation=event_augmentation(info.name, info.input_shape[-1]))


def checked_count(num_examples: int, available: int, name: str, split: str) -> int:
    """`num_examples`, or ValueError if the split has fewer or it is below 1."""
    if not 1 <= num_examples <= available:
        raise ValueError(
            f"num_examples is {num_examples}, but the {split} split of {name} has {available} examples; "
            f"give a whole number from 1 to {available}, or None for all of them."
        )
    return num_examples
