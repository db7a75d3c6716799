"""Which examples make a split, and in which order: cut per class from a fixed seed, then in turn over the classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SPLIT_SEED = 0
VALIDATION_SHARE = 0.1  # of the examples of each class in train


def in_turn(lists: Sequence[Sequence[int] | np.ndarray]) -> tuple[int, ...]:
    """The first of every list, then the second of every list, and so on; a list that is used up is passed over."""
    longest = max((len(members) for members in lists), default=0)
    return tuple(int(members[turn]) for turn in range(longest) for members in lists if turn < len(members))


def balanced(labels: np.ndarray) -> np.ndarray:
    """The numbers 0..N-1 in turn over the classes, so that the first so many are as balanced as the whole."""
    return np.array(in_turn([np.flatnonzero(labels == label) for label in np.unique(labels)]), dtype=np.int64)


def cut(labels: np.ndarray) -> dict[str, np.ndarray]:
    """ "train" and "validation": the numbers 0..N-1 cut class by class, each in turn over the classes.

    Every class is shuffled and gives a tenth, rounded to whole examples but at least one, to validation; a class with
    a single example gives none. The shuffle is `np.random.RandomState`, whose stream NumPy has promised not to change
    (NEP 19), so a data set is cut alike on every machine.
    """
    rng = np.random.RandomState(SPLIT_SEED)
    parts: dict[str, list[np.ndarray]] = {"train": [], "validation": []}
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        size = min(max(1, round(VALIDATION_SHARE * len(members))), len(members) - 1)
        parts["validation"].append(members[:size])
        parts["train"].append(members[size:])
    return {split: np.array(in_turn(lists), dtype=np.int64) for split, lists in parts.items()}
