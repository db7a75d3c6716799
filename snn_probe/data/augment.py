"""Changes to training inputs that keep the label. Never for measurements: those take the examples as they are.

Every change of pixels' places is one choice of rows and columns (`rearranged`), drawn for each example on its own from
a table of random numbers (`draws`) with one row per example of the split. So what happens to an example depends on the
table's seed and the example alone, not on batch, order, device or number of processes. All frames and channels of an
example move together. Sources: He et al., CVPR 2016 (crop, flip); DeVries, Taylor, arXiv 1708.04552 (Cutout); Deng et
al., ICLR 2022 (roll and flip of event frames).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

BITS = 31  # of each number in a table: `chosen` is exact in int64 on every device


class Augmentation(Protocol):
    """A batch and its rows of the table in, a new batch out; `num_draws` is how many numbers a row has."""

    num_draws: ClassVar[int]

    def __call__(self, inputs: Tensor, rows: Tensor) -> Tensor: ...


def draws(num_examples: int, num_draws: int, seed: int) -> Tensor:
    """The table (num_examples, num_draws) int64, uniform in 0..2^31 - 1; row i is the same however many rows follow.

    From `np.random.RandomState`, whose stream NumPy has promised to keep, because torch's generator on the CPU looks at
    the lower 32 bits of a seed alone.
    """
    drawn = np.random.RandomState(words(seed)).randint(0, 2**BITS, (num_examples, num_draws), dtype=np.int64)
    return torch.from_numpy(drawn)


def words(number: int) -> list[int]:
    """The lower 64 bits of a seed or number as two words of 32, which is what RandomState takes."""
    return [number & 0xFFFFFFFF, number >> 32 & 0xFFFFFFFF]


def chosen(drawn: Tensor, count: int) -> Tensor:
    """Numbers of a table made uniform in 0..count - 1 (to one part in 2^31 / count)."""
    return (drawn * count) >> BITS


@dataclass(frozen=True)
class Shift:
    """Moved by U{-max_shift..max_shift} pixels on either axis, zeros coming in: for `digits` and `event-digits`."""

    max_shift: int
    num_draws: ClassVar[int] = 2

    def __call__(self, inputs: Tensor, rows: Tensor) -> Tensor:
        return shifted(inputs, chosen(rows, 2 * self.max_shift + 1) - self.max_shift)


@dataclass(frozen=True)
class CropFlipCutout:
    """Padded with `padding` black pixels and cropped to the old size; mirrored with p = 1/2; a square blackened.

    The square has `cut` pixels on a side and its centre on any pixel alike, so it may reach beyond the image; with
    `cut` = 0 there is none. Inputs are (N, C, H, W) before normalisation, so what comes in and what is cut is black,
    not grey. At 32x32 the papers use padding 4 and cut 16.
    """

    padding: int
    cut: int
    num_draws: ClassVar[int] = 5

    def __call__(self, inputs: Tensor, rows: Tensor) -> Tensor:
        size = inputs.shape[-2:]
        moved = chosen(rows[:, :2], 2 * self.padding + 1) - self.padding
        down, right = (torch.arange(length, device=inputs.device) for length in size)
        mirrored = torch.where(chosen(rows[:, 2:3], 2) == 1, right.flip(0), right)
        kept = down + moved[:, :1], mirrored + moved[:, 1:]
        in_rows, in_columns = (
            (torch.arange(length, device=inputs.device) - chosen(rows[:, k : k + 1], length) + self.cut // 2)
            for k, length in zip((3, 4), size, strict=True)
        )
        hit = _both((in_rows >= 0) & (in_rows < self.cut), (in_columns >= 0) & (in_columns < self.cut))
        return _masked(rearranged(inputs, *kept), _inside(*kept, size) & ~hit)


@dataclass(frozen=True)
class RollFlip:
    """Mirrored with p = 1/2 if `flip`, then rolled by U{-max_roll..max_roll} pixels on either axis: for event frames.

    What leaves at one edge comes back at the other. `flip` is only for classes that a mirror leaves alone: it would
    turn a left arm into a right one, and a 2 into no digit at all.
    """

    max_roll: int
    flip: bool
    num_draws: ClassVar[int] = 3

    def __call__(self, inputs: Tensor, rows: Tensor) -> Tensor:
        height, width = inputs.shape[-2:]
        moved = chosen(rows[:, :2], 2 * self.max_roll + 1) - self.max_roll
        down, right = torch.arange(height, device=inputs.device), torch.arange(width, device=inputs.device)
        columns = (right - moved[:, 1:]) % width
        if self.flip:
            columns = torch.where(chosen(rows[:, 2:], 2) == 1, width - 1 - columns, columns)
        return rearranged(inputs, (down - moved[:, :1]) % height, columns)


def rearranged(inputs: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """New tensor of the shape of `inputs` whose pixel (r, c) of example n is `inputs`' (rows[n, r], columns[n, c]).

    `rows` is (N, H), `columns` (N, W), int64; a place outside the image counts as the nearest inside. `inputs` is
    (N, ..., H, W).
    """
    height, width = inputs.shape[-2:]
    places = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None, :]
    flat = inputs.flatten(-2).flatten(1, -2)  # (N, C, H * W), or (N, T * C, H * W)
    return flat.gather(2, places.flatten(1)[:, None].expand(-1, flat.shape[1], -1)).view(inputs.shape)


def shifted(inputs: Tensor, shifts: Tensor) -> Tensor:
    """Example n moved down by shifts[n, 0] and right by shifts[n, 1] pixels, zeros coming in; a new tensor."""
    down, right = (torch.arange(length, device=inputs.device) for length in inputs.shape[-2:])
    kept = down - shifts[:, :1], right - shifts[:, 1:]
    return _masked(rearranged(inputs, *kept), _inside(*kept, inputs.shape[-2:]))


def _inside(rows: Tensor, columns: Tensor, size: Sequence[int]) -> Tensor:
    """(N, H, W) bool: whether the place that a pixel is taken from lies in the image."""
    return _both((rows >= 0) & (rows < size[0]), (columns >= 0) & (columns < size[1]))


def _both(rows: Tensor, columns: Tensor) -> Tensor:
    return rows[:, :, None] & columns[:, None, :]


def _masked(out: Tensor, mask: Tensor) -> Tensor:
    """`out` (N, ..., H, W) with zeros where `mask` (N, H, W) is False, in place."""
    return out.mul_(mask.view(len(mask), *(1,) * (out.dim() - 3), *mask.shape[1:]))
