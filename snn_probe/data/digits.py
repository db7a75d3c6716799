"""`digits`: the 1797 handwritten digits of 8x8 pixels that come with scikit-learn (`load_digits`), and their splits.

Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI repository, 1998 (its test part).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from .ordering import SPLIT_SEED, in_turn

NUM_CLASSES = 10
SPLITS = ("train", "validation", "test")
MAX_GREY = 16.0  # load_digits stores the number of dark dots in a 4x4 block of the scan: 0 to 16


def read(split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs (N, 1, 8, 8) float32 in [0, 1] and labels (N,) int64 of one of `SPLITS`, as fresh tensors."""
    images, labels = all_digits()
    chosen = list(split_indices()[split])
    return torch.from_numpy(images[chosen][:, None]), torch.from_numpy(labels[chosen])


@lru_cache(maxsize=1)
def all_digits() -> tuple[np.ndarray, np.ndarray]:
    """All images (1797, 8, 8) float32 in [0, 1] and labels (1797,) int64 in scikit-learn's order; read-only arrays."""
    from sklearn.datasets import load_digits  # late, for scikit-learn takes about a second to import

    stored = load_digits()
    images = (stored.images / MAX_GREY).astype(np.float32)
    labels = stored.target.astype(np.int64)
    images.setflags(write=False)
    labels.setflags(write=False)
    return images, labels


@lru_cache(maxsize=1)
def split_indices() -> dict[str, tuple[int, ...]]:
    """For each of `SPLITS` the numbers of its images in scikit-learn's order.

    Every class is shuffled and cut on its own: 70 % train, 10 % validation (both rounded to whole images), the rest
    test. Each split then takes one image of every class in turn, so that its beginning is as balanced as the whole.
    The shuffle is `np.random.RandomState`, whose stream NumPy has promised not to change (NEP 19), so the splits are
    the same with every version.
    """
    _, labels = all_digits()
    rng = np.random.RandomState(SPLIT_SEED)
    per_class: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
    for digit in range(NUM_CLASSES):
        members = rng.permutation(np.flatnonzero(labels == digit))
        num_train, num_validation = round(0.7 * len(members)), round(0.1 * len(members))
        parts = np.split(members, [num_train, num_train + num_validation])
        for split, part in zip(SPLITS, parts, strict=True):
            per_class[split].append(part)
    return {split: in_turn(parts) for split, parts in per_class.items()}
