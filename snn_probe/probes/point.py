"""One point of a loss slice: losses and accuracy of a model at other weights, without touching its own.

Several objectives are taken from each forward pass. Sums and counts are carried and divided once.
"""

import hashlib
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from snn_probe.distributed import pooled, together
from snn_probe.probes.batching import device_of
from snn_probe.temporal import spiking_layers

Objective = Callable[..., Tensor]


@dataclass(frozen=True)
class Point:
    """Mean loss by objective, accuracy of the time-mean logits, and whether each loss is a trustworthy number."""

    losses: dict[str, float]
    accuracy: float
    finite: dict[str, bool]


def named_objectives(objectives: Mapping[str, Objective] | Sequence[Objective]) -> dict[str, Objective]:
    """Objectives by name; ValueError for none, two of one name, or something that is no objective."""
    if isinstance(objectives, Mapping):
        found = dict(objectives)
    elif isinstance(objectives, Iterable) and not isinstance(objectives, str):
        listed = list(objectives)
        names: list[Any] = [getattr(objective, "name", None) for objective in listed]
        if not all(isinstance(name, str) for name in names):
            raise ValueError("An objective of the list has no name; give a dict {name: objective}.")
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"objectives has {min(twice)!r} twice; give a dict with a name for each.")
        found = dict(zip(names, listed, strict=True))
    else:
        raise ValueError(f"objectives is {objectives!r}; give a list as [SDT(), TET()] or a dict {{name: objective}}.")
    if not found:
        raise ValueError("objectives is empty; give at least one, such as [SDT()].")
    for name, objective in found.items():
        if not isinstance(name, str) or not callable(objective) or isinstance(objective, type):
            raise ValueError(f"objectives[{name!r}] is {objective!r}; give a function of (logits, labels, params).")
    return found


def described(objective: Objective) -> str:
    """What the settings say of an objective: the same text in every process."""
    function = getattr(objective, "__qualname__", None)
    text = repr(objective) if is_dataclass(objective) else function or type(objective).__qualname__
    return f"{text} without its penalty" if hasattr(objective, "without_penalty") else text


def source_digest(things: Iterable[Any]) -> str:
    """SHA-256 of what is written of a model or objective beside its weights: how it shows itself (thresholds and leaks
    of SpikingJelly's neurons, hyperparameters) and the source of its code where that is a file."""
    sha256 = hashlib.sha256()
    for thing in things:
        shown = repr(thing) if isinstance(thing, nn.Module) or is_dataclass(thing) else described(thing)
        try:
            source = inspect.getsource(thing if inspect.isroutine(thing) else type(thing))
        except (OSError, TypeError):
            source = ""
        sha256.update(f"{shown}\n{source}\n".encode())
    return sha256.hexdigest()


def measure(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    objectives: Mapping[str, Objective],
    weights: Mapping[str, Tensor],
    currents: "Currents",
) -> Point:
    """The model with ``weights`` in place of its tensors of these names; call inside ``probing`` and ``no_grad``.

    ``batches`` are this process's; what others, if they share the work, find on theirs is added.
    Weights or input currents that are not finite make ``finite`` false for every objective: a neuron that reads NaN
    stays silent, so the loss alone may look like a number. Logits that are not finite are never counted as correct.
    """
    params = {**dict(model.named_parameters()), **weights}
    sums = torch.zeros(len(objectives) + 3, dtype=torch.float64, device=device_of(model))
    currents.clear()
    with together():
        for inputs, labels in batches:
            logits = functional_call(model, dict(weights), (inputs,))
            mean = logits.mean(0)
            right = ((mean.argmax(-1) == labels) & mean.isfinite().all(-1)).double().mean()
            losses = [_loss(name, objective, logits, labels, params).double() for name, objective in objectives.items()]
            sums[:-1] += torch.stack([*losses, right, torch.ones_like(right)]) * len(labels)
        sums[-1] = not currents.finite()
    *totals, count, unsound = pooled(sums).tolist()
    *means, accuracy = (total / count for total in totals)
    sound = not unsound and all(bool(w.isfinite().all()) for w in weights.values())
    by_name = dict(zip(objectives, means, strict=True))
    return Point(by_name, accuracy, {name: sound and math.isfinite(loss) for name, loss in by_name.items()})


class Currents:
    """Whether every input of the model's spiking layers was finite since ``clear``; see :func:`watched_currents`."""

    def __init__(self):
        self._sums: list[Tensor] = []

    def clear(self) -> None:
        self._sums.clear()

    def add(self, module: nn.Module, args: tuple) -> None:
        """A forward pre-hook. The sum of a tensor is finite only if (and, short of overflow, when) its entries are."""
        if args and isinstance(args[0], Tensor):
            x = args[0]
            self._sums.append((x[0] if x.ndim and x.stride(0) == 0 else x).sum())  # one of equal timesteps is enough

    def finite(self) -> bool:
        return not self._sums or bool(torch.stack(self._sums).isfinite().all())


@contextmanager
def watched_currents(model: nn.Module) -> Iterator[Currents]:
    """Hooks on the model's spiking layers while the context is open."""
    currents = Currents()
    handles = [layer.register_forward_pre_hook(currents.add) for layer in spiking_layers(model).values()]
    try:
        yield currents
    finally:
        for handle in handles:
            handle.remove()


def _loss(name: str, objective: Objective, logits: Tensor, labels: Tensor, params: Mapping[str, Tensor]) -> Tensor:
    without = getattr(objective, "without_penalty", None)
    try:
        loss = objective(logits, labels, params) if without is None else without(logits, labels)
    except KeyError as error:
        raise ValueError(
            f"objectives[{name!r}] needs the parameter {error.args[0]!r}, which the model does not have; "
            "give an objective that fits the model."
        ) from error
    if not isinstance(loss, Tensor) or loss.ndim != 0:
        came = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(f"objectives[{name!r}] returned {came}; give a scalar tensor, the mean over the examples.")
    return loss.detach()
