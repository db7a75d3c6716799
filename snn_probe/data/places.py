"""Where data sets lie below the data root, what is missing there, and downloading what may be downloaded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from . import cifar
from .catalog import FOLDERS

VARIABLE = "SNNPROBE_DATA"
IMAGENET_PAGE = "https://image-net.org/download.php"
_PARTS = {"imagenet": ("train", "val"), "image-folder": ("train",)}  # without which a folder is not the set's
_FOLDER_NAMES = {"imagenet": ("imagenet", "ImageNet", "ILSVRC2012", "."), "image-folder": (".", "image-folder")}


def data_root(root: str | os.PathLike[str] | None, *, made: bool = False) -> Path:
    """The folder of data sets: `root`, or else what the environment variable SNNPROBE_DATA says.

    Raises ValueError if there is neither, or no such folder; with `made` true it may still have to be made.
    """
    given = root if root is not None else os.environ.get(VARIABLE)
    if not given:
        raise ValueError(
            "the folder of the data sets is not known; give it with --data-root DIR (root), or set the environment "
            f"variable {VARIABLE}."
        )
    path = Path(given).expanduser()
    if not path.is_dir() and not (made and not path.exists()):
        raise ValueError(
            f"{path} is no folder; give the folder of the data sets with --data-root DIR (root) or {VARIABLE}."
        )
    return path


def find(name: str, root: Path) -> Path:
    """The folder of an image set below `root`. Raises ValueError that says what was expected and where to get it."""
    for folder in _candidates(name, root):
        if all((folder / part).is_dir() for part in _PARTS.get(name, ("",))):
            return folder
    raise ValueError(f"{root} has no {name}: {_expected(name, root)}.")


def find_or_download(name: str, root: Path, *, download: bool) -> Path:
    """The folder of an image set, fetched first where it is not complete and `download` is true.

    Raises ValueError where the set cannot be downloaded or the download fails.
    """
    if not download:
        return find(name, root)
    if name in FOLDERS:
        try:
            return find(name, root)
        except ValueError as missing:
            raise ValueError(f"{name} cannot be downloaded by a program; {missing}") from None
    layout = cifar.LAYOUTS[name]
    try:
        folder = find(name, root)
        if all((folder / file).is_file() for file in (*layout.train, *layout.test)):
            return folder
    except ValueError:
        folder = root / layout.folder
    _download_cifar(name, folder.parent)
    return folder


def _candidates(name: str, root: Path) -> Iterator[Path]:
    if name in FOLDERS:
        yield from (root / folder for folder in _FOLDER_NAMES[name])
        return
    folder = cifar.LAYOUTS[name].folder
    yield from (root / folder, root / name / folder)
    if root.resolve().name == folder:
        yield root


def _expected(name: str, root: Path) -> str:
    if name == "image-folder":
        return (
            f"expected {root}/train/CLASS/ and {root}/test/CLASS/ (or val) with images, or frames (.npy, .npz), in them"
        )
    if name == "imagenet":
        return (
            f"expected {root}/imagenet/train/CLASS/ and {root}/imagenet/val/CLASS/; unpack ILSVRC2012_img_train.tar "
            f"and ILSVRC2012_img_val.tar from {IMAGENET_PAGE} so"
        )
    layout = cifar.LAYOUTS[name]
    archive = root / layout.archive
    if archive.is_file():
        return f"{archive} is not unpacked yet; run tar -xzf {archive} -C {root}"
    return (
        f"expected the folder {root / layout.folder}; run snnprobe data --data-root {root} --download {name}, "
        f"or unpack {layout.archive} from {cifar.PAGE} there"
    )


def _download_cifar(name: str, folder: Path) -> None:
    from torchvision import datasets  # late: it takes more than a second to import
    from torchvision.datasets.utils import download_and_extract_archive

    source = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    try:
        download_and_extract_archive(source.url, str(folder), filename=source.filename, md5=source.tgz_md5)
    except (OSError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{name} could not be downloaded from {source.url} ({' '.join(str(error).split())}); try again, or unpack "
            f"{source.filename} from {cifar.PAGE} in {folder}."
        ) from None
