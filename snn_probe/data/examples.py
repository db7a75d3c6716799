"""A split of a data set: examples that are taken by number, fed to training, or read in order by probes.

There are two kinds, used alike: `Split` lives in memory, `streams.StreamSplit` is read from files as it goes.
Symbols: N examples, T timesteps (frames), C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from .augment import Augmentation, draws

RESIDENT_LIMIT = 4 * 2**30  # bytes: examples that take more stay in main memory, and batches travel to the device


@dataclass(frozen=True)
class Normalization:
    """(value / 255 - mean) / std per channel, for uint8 images."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, pixels: Tensor) -> Tensor:
        """float32 from (N, C, H, W) uint8."""
        mean, std = (
            torch.tensor(values, device=pixels.device)[:, None, None] * 255 for values in (self.mean, self.std)
        )
        return pixels.float().sub_(mean).div_(std)


class Examples(Protocol):
    """What every split offers; `Split` says what each does."""

    @property
    def labels(self) -> Tensor: ...

    def __len__(self) -> int: ...

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]: ...

    def feed(
        self, order: Sequence[Tensor], *, augment_seed: int | None = None, device: str | torch.device = "cpu"
    ) -> Iterator[tuple[Tensor, Tensor]]: ...

    def pieces(self, batch_size: int) -> Iterable[tuple[Tensor, Tensor]]: ...


@dataclass(frozen=True, eq=False)
class Split:
    """Examples in memory: `stored` is (N, C, H, W) or (N, T, C, H, W), float32 or smaller; `labels` int64, (N,).

    uint8 images have a `normalization`, which is applied when examples are taken; `augmentation` is what `feed` does
    when it is given a seed.
    """

    stored: Tensor
    labels: Tensor
    normalization: Normalization | None = None
    augmentation: Augmentation | None = None
    _copies: dict[torch.device, Tensor] = field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def inputs(self) -> Tensor:
        """All inputs as float32; for examples stored as float32 the very tensor, otherwise a new one."""
        return self._finished(self.stored)

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (float32, normalised, never augmented) and labels of the numbered examples, as new tensors."""
        return self._finished(self.stored[indices]), self.labels[indices]

    def feed(
        self, order: Sequence[Tensor], *, augment_seed: int | None = None, device: str | torch.device = "cpu"
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One batch (inputs, labels) on `device` for each tensor of example numbers in `order`.

        With `augment_seed` the inputs are augmented; what happens to example i depends only on that seed and i.
        On an accelerator the stored examples are copied once, if they fit RESIDENT_LIMIT, and stay there.
        """
        device = torch.device(device)
        stored = self._on(device)
        augmentation, table = self.augmentation, None
        if augmentation is not None and augment_seed is not None:
            table = draws(len(self), augmentation.num_draws, augment_seed).to(device)
        for indices in order:
            inputs = stored[indices.to(stored.device)].to(device)
            inputs = inputs if inputs.dtype == torch.uint8 else inputs.float()  # float16 is slow on the CPU
            if augmentation is not None and table is not None:
                inputs = augmentation(inputs, table[indices.to(device)])
            yield self._finished(inputs), self.labels[indices].to(device)

    def pieces(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The examples in order, `batch_size` at a time; views where they are stored as float32."""
        for start in range(0, len(self), batch_size):
            piece = slice(start, start + batch_size)
            yield self._finished(self.stored[piece]), self.labels[piece]

    def _finished(self, inputs: Tensor) -> Tensor:
        return inputs.float() if self.normalization is None else self.normalization(inputs)

    def _on(self, device: torch.device) -> Tensor:
        if device.type == "cpu" or self.stored.nbytes > RESIDENT_LIMIT:
            return self.stored
        if device not in self._copies:
            self._copies[device] = self.stored.to(device)
        return self._copies[device]


@dataclass(frozen=True)
class Batches:
    """The examples of a split in pieces of `batch_size`, in the same order each time it is iterated.

    The last piece is shorter where `batch_size` does not divide N. No augmentation.
    Raises ValueError for a `batch_size` below 1.
    """

    split: Examples
    batch_size: int

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}, which holds no example; give a whole number from 1 up.")

    def __len__(self) -> int:
        """How many batches there are, the ragged last one included."""
        return -(-len(self.split) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(self.split.pieces(self.batch_size))


def batches(split: Examples, batch_size: int) -> Batches:
    """The batches every probe takes: (inputs, labels) pairs that can be iterated again and come in the same order."""
    return Batches(split, batch_size)
