"""A data set of the user's own, made by a factory that is named as ``package.module:factory``.

    def load(num_steps, root):
        return {"train": (inputs, labels), "test": (inputs, labels)}

The factory is called by keyword with those of `num_steps` (T) and `root` (--data-root, or None) that it takes, possibly
none. It returns a mapping of splits: "train", "test" and, if it is not to be a tenth of train, "validation"; to probe,
the split that is probed is enough. A split is a pair of tensors or arrays, inputs (N, ...) as the network is to see
them and whole labels (N,) from 0, or a map-style Dataset of (input, label), which is read into memory once. Beside them
may stand "classes", a list of names, and "temporal". Without "temporal", inputs of 3 or 5 axes are taken for streams
(N, T, ...), cut into `num_steps` already, and others for static, which are shown at every timestep.

Examples are reordered in turn over the classes, so that the first so many are balanced, as in every set here.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snn_probe.own import called, found

from .catalog import DatasetInfo
from .digits import SPLITS
from .examples import Split
from .ordering import balanced, cut

_FACTS = ("classes", "temporal")
_KEPT = (torch.float32, torch.float16, torch.uint8)  # all others are stored as float32


def describe_own(name: str, num_steps: int | None, root: str | None) -> DatasetInfo:
    """Input shape (of one timestep), classes and kind. Raises ValueError for a factory that breaks its promise."""
    return made(name, num_steps, root)[0]


def load_own(name: str, split: str, num_steps: int | None, root: str | None) -> Split:
    """A split. Raises ValueError for a factory that breaks its promise or does not give this split."""
    info, splits = made(name, num_steps, root)
    if split not in splits:
        lacking = "train" if split == "validation" and "train" not in splits else split  # what it would be cut from
        raise ValueError(f"{name} gives no {lacking} split, only {', '.join(splits)}; return it too.")
    if info.temporal and (frames := splits[split].stored.shape[1]) != num_steps:
        raise ValueError(
            f"The streams of {name} have {frames} timesteps, but num_steps is {num_steps}; give --num-steps {frames}, "
            "or let the factory take num_steps and cut them so."
        )
    return splits[split]


def made(name: str, num_steps: int | None, root: str | None) -> tuple[DatasetInfo, dict[str, Split]]:
    """What the set is, and its splits. Raises ValueError for a factory that breaks its promise."""
    meant = found(name, "--data")
    if isinstance(meant, Mapping):
        return _checked(name, meant)
    return _called(name, meant, num_steps, root)


@lru_cache(maxsize=4)  # a run asks for its splits several times
def _called(name: str, factory: Any, num_steps: int | None, root: str | None) -> tuple[DatasetInfo, dict[str, Split]]:
    return _checked(name, called(name, factory, num_steps=num_steps, root=root))


def _checked(name: str, given: Any) -> tuple[DatasetInfo, dict[str, Split]]:
    if not isinstance(given, Mapping) or not set(given) & set(SPLITS) or set(given) - {*SPLITS, *_FACTS}:
        came = f"a mapping of {', '.join(map(str, given))}" if isinstance(given, Mapping) else type(given).__name__
        raise ValueError(
            f"{name} returned {came}; return a mapping with train, test and, if you like, validation, each a pair "
            "(inputs, labels) or a Dataset; classes and temporal may stand beside them."
        )
    pairs = {split: _pair(f"{name}, {split}", given[split]) for split in SPLITS if split in given}
    axes = {tuple(inputs.shape[1:]) for inputs, _ in pairs.values()}
    if len(axes) > 1:
        raise ValueError(f"The splits of {name} have inputs of different shapes, {sorted(axes)}; make them alike.")
    (shape,) = axes
    classes = _classes(name, given.get("classes"), pairs)
    temporal = given.get("temporal", len(shape) in (2, 4))
    if not isinstance(temporal, bool) or (temporal and len(shape) < 2):
        raise ValueError(f"{name} says that temporal is {temporal!r} of inputs (N, {', '.join(map(str, shape))}); "
                         "streams are (N, T, ...), and temporal is True or False.")  # fmt: skip
    info = DatasetInfo(name, shape[temporal:], len(classes), temporal, classes, "your own")
    return info, {split: Split(*pair) for split, pair in _ordered(pairs).items()}


def _pair(where: str, given: Any) -> tuple[Tensor, Tensor]:
    """Inputs (N, ...) and labels (N,) int64 of a split, whatever it was given as."""
    arrays = isinstance(given, tuple | list) and len(given) == 2 and all(hasattr(part, "shape") for part in given)
    inputs, labels = given if arrays else _read(where, given)
    inputs, labels = _tensor(where, inputs), _tensor(where, labels)
    if labels.ndim != 1 or labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        came = f"{tuple(labels.shape)} {str(labels.dtype).removeprefix('torch.')}"
        raise ValueError(f"{where}: labels are {came}; give whole class numbers, one per example: (N,), from 0.")
    if inputs.ndim < 2 or len(inputs) != len(labels) or not len(labels) or inputs.is_complex():
        raise ValueError(
            f"{where}: inputs have shape {tuple(inputs.shape)} and labels {tuple(labels.shape)}; give real inputs "
            "(N, ...) and labels (N,) of the same N, at least 1."
        )
    inputs = inputs if inputs.dtype in _KEPT else inputs.float()
    if not inputs.isfinite().all():
        raise ValueError(f"{where}: inputs hold NaN or infinity; remove those examples, or replace the values.")
    return inputs, labels.long()


def _read(where: str, dataset: Any) -> tuple[Any, Any]:
    """A map-style Dataset, read whole."""
    said = "give a pair (inputs, labels) of tensors, or a map-style Dataset of (input, label)"
    if isinstance(dataset, str | Mapping) or not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise ValueError(f"{where} is {type(dataset).__name__}; {said}.")
    try:
        examples = [dataset[number] for number in range(len(dataset))]
        inputs = torch.stack([torch.as_tensor(np.asarray(x)) if not isinstance(x, Tensor) else x for x, _ in examples])
        return inputs, torch.tensor([int(label) for _, label in examples])
    except Exception as error:
        text = " ".join(str(error).split()).rstrip(".")
        raise ValueError(f"{where}: reading its examples raised {type(error).__name__} ({text}); {said}.") from error


def _tensor(where: str, values: Any) -> Tensor:
    try:
        return torch.as_tensor(values).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{where}: {' '.join(str(error).split()).rstrip('.')}; give tensors or arrays.") from None


def _classes(name: str, given: Any, pairs: Mapping[str, tuple[Tensor, Tensor]]) -> tuple[str, ...]:
    """Names of the classes, which the labels must stay within."""
    low = min(int(labels.min()) for _, labels in pairs.values())
    high = max(int(labels.max()) for _, labels in pairs.values())
    names = tuple(map(str, range(high + 1))) if given is None else given
    if isinstance(names, str) or not hasattr(names, "__len__") or len(names) < 2:
        what = "one class" if given is None else f"classes {given!r}"
        raise ValueError(f"{name} has {what}; give labels of at least two classes, and classes as a list of names.")
    if low < 0 or high >= len(names):
        raise ValueError(f"{name} has labels from {low} to {high}, but {len(names)} classes; number them from 0 to "
                         f"{len(names) - 1}.")  # fmt: skip
    return tuple(map(str, names))


def _ordered(pairs: dict[str, tuple[Tensor, Tensor]]) -> dict[str, tuple[Tensor, Tensor]]:
    """Each split in turn over the classes; validation is cut from train where it is not given."""
    orders = {split: (split, balanced(labels.numpy())) for split, (_, labels) in pairs.items()}
    if "train" in pairs and "validation" not in pairs:
        orders |= {split: ("train", order) for split, order in cut(pairs["train"][1].numpy()).items()}
    return {
        split: (pairs[source][0][order], pairs[source][1][order])
        for split, (source, order) in ((s, orders[s]) for s in SPLITS if s in orders)
        if len(order)
    }
