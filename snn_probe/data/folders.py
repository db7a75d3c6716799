"""Images in folders: `train/<class>/...` beside `val/<class>/...` or `test/<class>/...`, as ImageNet is unpacked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from snn_probe.machine.files import read_text

from .images import EXTENSIONS
from .ordering import balanced, cut

MAX_CLASS_FILE = 2**20  # bytes


def class_folders(folder: Path) -> tuple[str, ...]:
    """Names of the class folders in `folder`, sorted; hidden ones are passed over. Raises ValueError for none."""
    try:
        found = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise ValueError(f"{folder} cannot be read ({error.strerror}); expected a folder of class folders.") from None
    if not found:
        raise ValueError(f"{folder} has no class folders; expected {folder}/CLASS/IMAGE with one folder per class.")
    return tuple(found)


def chosen_classes(folder: Path, classes: Sequence[str] | None, *, imagenet: bool) -> tuple[str, ...]:
    """The class folders of the training images, or those of them that `classes` names, in that order.

    Raises ValueError for a class that is not there, is named twice, or is only among the held-out images.
    """
    found = class_folders(folder / "train")
    if classes is None:
        for place in split_folders(folder, imagenet=imagenet).values():
            for name in class_folders(place):
                if name not in found:
                    raise ValueError(
                        f"{place / name} is a class without training images; expected {folder / 'train' / name},"
                        " or name the classes to use."
                    )
        return found
    if not classes:
        raise ValueError("classes is empty; name at least one class folder, or leave it out for all of them.")
    for name in classes:
        if name not in found:
            raise ValueError(
                f"classes has {name!r}, which is no folder in {folder / 'train'}; "
                f"its {len(found)} folders are {_some(found)}."
            )
    if len(set(classes)) < len(classes):
        twice = next(name for name in classes if list(classes).count(name) > 1)
        raise ValueError(f"classes has {twice!r} twice; name each class once.")
    return tuple(classes)


def read_classes(path: str | Path) -> tuple[str, ...]:
    """The class folders that a text file names: the first word of each line that is not empty, in order.

    Raises ValueError for a file that cannot be read, is no short text, or names no class.
    """
    path = Path(path)
    advice = "give a text file with the name of one class folder at the beginning of each line"
    try:
        lines = read_text(path, most=MAX_CLASS_FILE).splitlines()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); {advice}.") from None
    except ValueError as error:
        raise ValueError(f"{path} is no list of classes ({error}); {advice}.") from None
    names = tuple(line.split()[0] for line in lines if line.strip())
    if not names:
        raise ValueError(f"{path} names no class; {advice}.")
    return names


def split_folders(folder: Path, *, imagenet: bool) -> dict[str, Path]:
    """Which folder each split is read from; validation and train share one where validation must be cut from it.

    `val` is the test split, but where there are both `val` and `test` it is the validation split. In ImageNet the
    official test images have no labels, so there `val` is the test split in any case.
    """
    train, val, test = (folder / name for name in ("train", "val", "test"))
    if imagenet or not test.is_dir():
        if not val.is_dir():
            raise ValueError(f"{folder} has train but neither val nor test; put the held-out images in {val}/CLASS/.")
        return {"train": train, "validation": train, "test": val}
    return {"train": train, "validation": val if val.is_dir() else train, "test": test}


def split_files(
    folder: Path, split: str, classes: Sequence[str], *, imagenet: bool, extensions: tuple[str, ...] = EXTENSIONS
) -> tuple[list[str], np.ndarray]:
    """Image files (by their `extensions`) of a split and their labels (N,) int64, in turn over the classes; label k is `classes[k]`."""
    places = split_folders(folder, imagenet=imagenet)
    files, labels = labelled_files(places[split], classes, extensions)
    if split == "test" or places["validation"] != places["train"]:
        order = balanced(labels)
    else:
        order = cut(labels)[split]
    if not len(order):
        raise ValueError(
            f"the {split} split of {folder} is empty: {places[split]} has {len(files)} images of its "
            f"{len(classes)} classes; expected {places[split]}/CLASS/IMAGE with at least two images per class."
        )
    return [files[k] for k in order], labels[order]


def labelled_files(
    folder: Path, classes: Sequence[str], extensions: tuple[str, ...] = EXTENSIONS
) -> tuple[list[str], np.ndarray]:
    """All image files below the class folders, sorted within each; folders of other classes are passed over.

    Raises ValueError where `folder` has none of the classes.
    """
    present = set(class_folders(folder))
    if not present & set(classes):
        raise ValueError(
            f"{folder} has none of the class folders of the training images; expected {folder}/{classes[0]} and others."
        )
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = _images(folder / name, extensions) if name in present else []
        files += found
        labels += [label] * len(found)
    return files, np.array(labels, dtype=np.int64)


def _images(folder: Path, extensions: tuple[str, ...]) -> list[str]:
    return [
        os.path.join(place, name)
        for place, _, names in sorted(os.walk(folder))
        for name in sorted(names)
        if name.lower().endswith(extensions)
    ]


def _some(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (" and others" if len(names) > most else "")
