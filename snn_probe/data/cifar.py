"""CIFAR-10 and CIFAR-100 in their published form for Python: folders of pickled batches (Krizhevsky 2009).

A pickle can run any program. So these are read by an unpickler that knows arrays of bytes and plain values, nothing
else, and that gives numpy no say in it.
"""

from __future__ import annotations

import pickle
import pickletools
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np

SIZE = 32
MAX_BYTES = 2**28  # of a batch file; the largest published one has 155 MB


@dataclass(frozen=True)
class Layout:
    """Files of one of the two sets, and what they hold."""

    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    labels: str
    num_classes: int
    archive: str


LAYOUTS = {
    "cifar10": Layout(
        "cifar-10-batches-py", tuple(f"data_batch_{k}" for k in range(1, 6)), ("test_batch",), "labels", 10,
        "cifar-10-python.tar.gz",
    ),
    "cifar100": Layout("cifar-100-python", ("train",), ("test",), "fine_labels", 100, "cifar-100-python.tar.gz"),
}  # fmt: skip
PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"


def read(folder: Path, layout: Layout, *, train: bool) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 3, 32, 32) uint8 and labels (N,) int64 of the train or the test files, in the order of the files.

    Raises ValueError, one sentence, for a file that is missing, cut off or not such a batch.
    """
    parts = [read_batch(folder / name, layout) for name in (layout.train if train else layout.test)]
    return np.concatenate([images for images, _ in parts]), np.concatenate([labels for _, labels in parts])


def read_batch(path: Path, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of one batch file."""
    again = f"unpack {layout.archive} from {PAGE} again"
    if not path.is_file():
        raise ValueError(f"{path} is missing from the batches of CIFAR; {again}.")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} is larger than any batch of CIFAR ({MAX_BYTES} bytes at most); {again}.")
    try:
        batch = _Unpickler(path.read_bytes()).load()
        images, labels = _checked(batch, layout)
    except _Refused as refused:
        raise ValueError(f"{path} holds {refused}, which a batch of CIFAR does not; {again}.") from None
    except Exception as error:  # a damaged pickle raises anything
        raise ValueError(f"{path} is no batch of CIFAR or is cut off ({type(error).__name__}); {again}.") from None
    return images, labels


def _checked(batch: Any, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    data, labels = batch["data"], batch[layout.labels]
    images = data.array()
    if images.ndim != 2 or images.shape[1] != 3 * SIZE * SIZE:
        raise _Refused(f"images of shape {images.shape}")
    if not isinstance(labels, list) or len(labels) != len(images):
        raise _Refused(f"{len(images)} images with {len(labels) if isinstance(labels, list) else 'no'} labels")
    if not all(type(label) is int and 0 <= label < layout.num_classes for label in labels):
        raise _Refused(f"labels beyond 0 to {layout.num_classes - 1}")
    return images.reshape(-1, 3, SIZE, SIZE), np.array(labels, dtype=np.int64)


class _Refused(Exception):
    """What was found that has no place in a batch."""


class _Type:
    """Stands for numpy's uint8 type while a batch is read; other types are refused."""

    def __init__(self, name: Any, *_: Any):
        if name not in ("u1", "uint8", "|u1"):
            raise _Refused(f"an array of type {name!r}"[:80])

    def __setstate__(self, state: Any) -> None:
        """Byte order and alignment, which bytes do not have."""


class _Array:
    """Stands for an array while a batch is read: numpy sees its bytes when their number is known to fit its shape."""

    def __init__(self, *_: Any):
        self.shape: tuple[int, ...] = (0,)
        self.content: bytes | str = b""
        self.order: Literal["C", "F"] = "C"

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, columns_first, content = state
        if not isinstance(kind, _Type) or columns_first not in (0, 1):
            raise _Refused("an array of a foreign form")
        if not isinstance(content, bytes | str) or not all(type(n) is int and n >= 0 for n in shape):
            raise _Refused("an array of a foreign form")
        self.shape, self.content, self.order = tuple(shape), content, "F" if columns_first else "C"

    def array(self) -> np.ndarray:
        content = self.content.encode("latin1") if isinstance(self.content, str) else self.content
        return np.frombuffer(content, dtype=np.uint8).reshape(self.shape, order=self.order)


class _Unpickler(pickle._Unpickler):  # the one written in Python: its memory grows with the file, whatever that says
    """Reads protocols 0 to 2, the published one, in which the few allowed names are stand-ins of this module."""

    dispatch = {  # noqa: RUF012
        ord(op.code): pickle._Unpickler.dispatch[ord(op.code)] for op in pickletools.opcodes if op.proto <= 2
    }

    def __init__(self, content: bytes):
        super().__init__(BytesIO(content), encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return lambda *_: _Array()
        if (module, name) == ("numpy", "ndarray"):
            return None  # what _reconstruct is asked to make, and makes here in any case
        if (module, name) == ("numpy", "dtype"):
            return lambda kind, *_: _Type(kind)
        if (module, name) == ("_codecs", "encode"):
            return lambda text, encoding: text  # newer Pythons write bytes so in this protocol, always as latin1
        raise _Refused(f"the program {module}.{name}"[:80])

    def get_extension(self, code: int) -> None:
        raise _Refused("a registered extension")
