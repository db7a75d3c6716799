"""What every probe does with its batches: refuse empty and one-shot ones, regroup, move to the model's device."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from snn_probe.temporal import Batches


def check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """ValueError unless ``value`` is one of ``allowed``."""
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; give one of {', '.join(map(repr, allowed))}.")


def check_whole(name: str, value: int, *, low: int) -> None:
    """ValueError unless ``value`` is a whole number of at least ``low``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ValueError(f"{name} is {value!r}; give a whole number of at least {low}.")


def check_labels(what: str, labels: Tensor, classes: int) -> None:
    """ValueError unless ``labels`` are from 0 to ``classes`` - 1; ``what`` has them."""
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise ValueError(
            f"{what} has labels from {low} to {high}, but the model has {classes} classes; "
            f"give labels from 0 to {classes - 1}."
        )


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's first parameter (or buffer); the CPU if it has neither."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


def on_device(batches: Batches, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches, checked and moved to ``device``, empty ones refused."""
    if iter(batches) is batches:
        raise ValueError("batches is a one-shot iterator; give a list or another object that can be iterated again.")
    count = 0
    for pair in batches:
        if not (isinstance(pair, tuple | list) and len(pair) == 2 and all(isinstance(x, Tensor) for x in pair)):
            raise ValueError(
                f"Batch {count} is no pair of tensors; give a list of (inputs, labels) or a DataLoader that gives them."
            )
        inputs, labels = pair
        if len(inputs) == 0 or len(inputs) != len(labels):
            raise ValueError(
                f"Batch {count} has {len(inputs)} inputs and {len(labels)} labels; give equally many, at least one."
            )
        if labels.dtype != torch.int64:
            raise ValueError(
                f"Batch {count} has labels of type {labels.dtype}; give class numbers of type torch.int64."
            )
        if labels.ndim != 1:
            raise ValueError(
                f"Batch {count} has labels of shape {tuple(labels.shape)}; give one class number each, (N,)."
            )
        if inputs.is_floating_point() and not inputs.isfinite().all():
            raise ValueError(f"Batch {count} contains NaN or infinite inputs; clean the data before probing.")
        yield inputs.to(device), labels.to(device)
        count += 1
    if count == 0:
        raise ValueError("batches is empty; give at least one batch (inputs, labels).")


def regrouped(batches: Iterator[tuple[Tensor, Tensor]], group_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The same examples in the same order, in batches that hold whole groups of ``group_size`` consecutive examples.

    Groups therefore do not depend on where batches end. What is left over at the end, fewer than ``group_size``
    examples, is not yielded.
    """
    kept: list[tuple[Tensor, Tensor]] = []
    for inputs, labels in batches:
        if group_size == 1:
            yield inputs, labels
            continue
        kept.append((inputs, labels))
        total = sum(len(y) for _, y in kept)
        whole = total - total % group_size
        if whole:
            x, y = torch.cat([x for x, _ in kept]), torch.cat([y for _, y in kept])
            yield x[:whole], y[:whole]
            kept = [(x[whole:], y[whole:])] if whole < total else []
