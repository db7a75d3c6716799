"""Data sets by name: `load("digits", "train")` gives inputs and labels as tensors in memory.

>>> split = load("event-digits", "test", num_steps=4, num_examples=100)
>>> for inputs, labels in batches(split, batch_size=32): ...

Both sets are made from digits that come with scikit-learn, so nothing is downloaded.
Symbols: N examples, T timesteps (frames), C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from . import digits, events

__all__ = ["DATASETS", "SPLITS", "Batches", "DatasetInfo", "Split", "batches", "load"]

SPLITS = digits.SPLITS


@dataclass(frozen=True)
class DatasetInfo:
    """What a network must know of a data set before it sees any of it.

    `input_shape` is (C, H, W), for event streams the shape of one frame. `temporal` is True for event streams,
    whose inputs are (N, T, C, H, W), and False for static images, (N, C, H, W). `classes[k]` is the name of label k.
    """

    name: str
    input_shape: tuple[int, int, int]
    num_classes: int
    temporal: bool
    classes: tuple[str, ...]
    description: str


@dataclass(frozen=True)
class Split:
    """Examples in memory: `inputs` float32, (N, C, H, W) or (N, T, C, H, W); `labels` int64, (N,)."""

    inputs: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)


_CLASSES = tuple(str(digit) for digit in range(digits.NUM_CLASSES))

DATASETS: dict[str, DatasetInfo] = {
    info.name: info
    for info in (
        DatasetInfo(
            "digits", (1, 8, 8), digits.NUM_CLASSES, False, _CLASSES, "1797 handwritten digits, grey levels in [0, 1]"
        ),
        DatasetInfo(
            "event-digits",
            (2, events.SENSOR_SIZE, events.SENSOR_SIZE),
            digits.NUM_CLASSES,
            True,
            _CLASSES,
            "the same digits seen by a simulated event camera in three saccades; counts of ON and OFF events",
        ),
    )
}
_READERS = {"digits": lambda split, num_steps: digits.read(split), "event-digits": events.read}


def load(name: str, split: str, *, num_steps: int | None = None, num_examples: int | None = None) -> Split:
    """The named split of a data set, as fresh tensors on the CPU: writing into them changes no later `load`.

    `num_steps` is T, the number of frames an event stream is cut into; static images ignore it.
    `num_examples` takes the first so many: examples are stored in turn over the classes, so the first N are nearly
    balanced (each class as often as any other, give or take one, until the rarest class is used up).

    Raises ValueError for an unknown `name` or `split`, a `num_steps` that is missing, below 1 or finer than the
    stream, and a `num_examples` below 1 or above the size of the split.
    """
    if name not in DATASETS:
        raise ValueError(f"name is {name!r}, which is no data set here; choose one of {', '.join(DATASETS)}.")
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}, which {name} does not have; choose one of {', '.join(SPLITS)}.")
    if DATASETS[name].temporal and (num_steps is None or num_steps < 1):
        raise ValueError(
            f"num_steps is {num_steps}, but {name} holds event streams that must be cut into frames; "
            f"give the number of frames, a whole number from 1 to {events.NUM_MOMENTS}."
        )
    inputs, labels = _READERS[name](split, num_steps)
    if num_examples is None:
        return Split(inputs, labels)
    if not 1 <= num_examples <= len(labels):
        raise ValueError(
            f"num_examples is {num_examples}, but the {split} split of {name} has {len(labels)} examples; "
            f"give a whole number from 1 to {len(labels)}, or None for all of them."
        )
    return Split(inputs[:num_examples].clone(), labels[:num_examples].clone())


@dataclass(frozen=True)
class Batches:
    """The examples of a split in pieces of `batch_size`, in the same order each time it is iterated.

    The last piece is shorter where `batch_size` does not divide N. Pieces are views of the split, not copies.
    Raises ValueError for a `batch_size` below 1.
    """

    split: Split
    batch_size: int

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}, which holds no example; give a whole number from 1 up.")

    def __len__(self) -> int:
        """How many batches there are, the ragged last one included."""
        return -(-len(self.split) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for start in range(0, len(self.split), self.batch_size):
            piece = slice(start, start + self.batch_size)
            yield self.split.inputs[piece], self.split.labels[piece]


def batches(split: Split, batch_size: int) -> Batches:
    """The batches every probe takes: (inputs, labels) pairs that can be iterated again and come in the same order."""
    return Batches(split, batch_size)
