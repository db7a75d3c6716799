"""Images that are decoded as they are needed, by worker processes that read ahead.

The workers read files and give uint8 batches; what is random in them is drawn per image from its own stream.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .augment import Augmentation, draws, words
from .examples import Normalization
from .images import centre, random_crop, read_image

MAX_WORKERS = 16


@dataclass(frozen=True, eq=False)
class StreamSplit:
    """Image files with labels, made `size` x `size` when they are read.

    Augmentation is either a `resized_crop` in the workers (ImageNet) or an `augmentation` of whole batches, or neither.
    A file that is no image is named in a ValueError when it is reached.
    """

    files: Sequence[str]
    labels: Tensor
    size: int
    normalization: Normalization
    augmentation: Augmentation | None = None
    resized_crop: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (float32, normalised, never augmented) and labels of the numbered examples."""
        return next(self.feed([indices]))

    def feed(
        self, order: Sequence[Tensor], *, augment_seed: int | None = None, device: str | torch.device = "cpu"
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One batch (inputs, labels) on `device` for each tensor of example numbers in `order`, read ahead.

        With `augment_seed` the inputs are augmented; what happens to example i depends only on that seed and i.
        """
        order, device = list(order), torch.device(device)
        augmentation, table = self.augmentation, None
        if augmentation is not None and augment_seed is not None:
            table = draws(len(self), augmentation.num_draws, augment_seed)
        crop_seed = augment_seed if self.resized_crop else None
        decoded = self.decoded(order, crop_seed=crop_seed, pinned=device.type == "cuda")
        for indices, pixels in zip(order, decoded, strict=True):
            inputs = pixels.to(device, non_blocking=True)
            if augmentation is not None and table is not None:
                inputs = augmentation(inputs, table[indices].to(device))
            yield self.normalization(inputs), self.labels[indices].to(device)

    def pieces(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The examples in order, `batch_size` at a time."""
        return self.feed(torch.arange(len(self)).split(batch_size) if len(self) else [])

    def decoded(
        self, order: Sequence[Tensor], *, crop_seed: int | None = None, pinned: bool = False
    ) -> Iterator[Tensor]:
        """The uint8 images (N, 3, size, size) of each tensor of numbers in `order`."""
        from torch.utils.data import DataLoader  # late: torch's loader is of use to large sets alone

        decoder: Any = _Decoder(self.files, self.size, order, crop_seed)  # all that a loader needs of a Dataset
        loader: DataLoader[Tensor] = DataLoader(
            decoder,
            batch_size=None,  # an item is a batch already
            num_workers=min(_cores(), len(order)) if len(order) > 1 else 0,
            pin_memory=pinned,
            generator=torch.Generator(),  # its own, or the loader would draw from everybody's
        )
        for found in loader:
            if isinstance(found, str):
                raise ValueError(found)
            yield found


class _Decoder:
    """Batch k of `order` as a uint8 tensor, or the sentence that says why there is none."""

    def __init__(self, files: Sequence[str], size: int, order: Sequence[Tensor], crop_seed: int | None):
        self.files, self.size, self.order, self.crop_seed = files, size, order, crop_seed

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, k: int) -> Tensor | str:
        try:
            images = [self._image(int(number)) for number in self.order[k]]
        except ValueError as error:  # an exception would come out of a worker with its traceback in the text
            return str(error)
        return torch.from_numpy(np.stack(images)) if images else torch.empty(0, 3, self.size, self.size).byte()

    def _image(self, number: int) -> np.ndarray:
        if self.crop_seed is None:
            return read_image(self.files[number], self.size, centre)
        rng = np.random.RandomState([*words(self.crop_seed), *words(number)])
        return read_image(self.files[number], self.size, lambda width, height, size: random_crop(width, height, rng))


def _cores() -> int:
    """Cores for this process, when several processes of a run share the machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MAX_WORKERS, cores // max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))))
