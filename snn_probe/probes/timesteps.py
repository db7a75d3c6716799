"""Accuracy and loss at every timestep; and, for the probes beside it, where a layer's tensors hold the timesteps."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snn_probe.distributed import dealt, gathered, pooled, together
from snn_probe.neurons.values_only import values_only
from snn_probe.probes import record
from snn_probe.probes.batching import check_labels, check_whole, device_of, on_device
from snn_probe.results import Result
from snn_probe.temporal import Batches, check_temporal, first_tensor, probing

_CHECKED_EXAMPLES = 2  # how many examples of the first batch the run-time checks use


def timestep_accuracy(model: nn.Module, batches: Batches, *, num_steps: int | None = None) -> Result:
    """Accuracy and loss of the mean of the first t logits: columns timestep, accuracy, stderr, loss; t counts from 1.

    ``accuracy`` a is a fraction from 0 to 1, ``stderr`` its binomial standard error sqrt(a (1 - a) / N), ``loss`` the
    mean over examples of the cross-entropy of the mean logits. ``num_steps=None``: t = 1..T, and the last row is what
    ``evaluate`` gives. With ``num_steps``: t = 1..num_steps, for which a model of static images is simulated that long
    (temporal scalability: one simulation serves every t, since a logit does not depend on later timesteps, which is
    checked); a model of streams has no more than its T timesteps.

    Not a measure of a network trained at t: it is the same weights at every row. Raises ValueError for a bad
    ``num_steps``, a model that breaks the temporal contract, and batches that are empty or not finite.
    """
    began = time.perf_counter()
    if num_steps is not None:
        check_whole("num_steps", num_steps, low=1)
    with together(), probing(model):
        stream = on_device(batches, device_of(model))
        first = next(stream)
        own = check_temporal(model, first[0][:_CHECKED_EXAMPLES])
        with (
            _simulated(model, first[0][:_CHECKED_EXAMPLES], num_steps, own) as simulated,
            torch.no_grad(),
            values_only(model),
        ):
            last = simulated if num_steps is None else num_steps
            loss, correct = torch.zeros(2, last, dtype=torch.float64)
            count = 0
            for inputs, labels in dealt(chain([first], stream)):
                logits = model(inputs)
                check_logits(logits, simulated, labels)
                for t in range(last):
                    mean = logits[: t + 1].mean(0)
                    loss[t] += float(F.cross_entropy(mean, labels, reduction="sum"))
                    correct[t] += int((mean.argmax(-1) == labels).sum())
                count += len(labels)
    loss, correct, count = pooled(loss), pooled(correct), sum(gathered(count))
    rows = [
        {"timestep": t + 1, "accuracy": a, "stderr": math.sqrt(a * (1 - a) / count), "loss": float(loss[t]) / count}
        for t, a in enumerate((correct / count).tolist())
    ]
    settings = {"num_steps": num_steps, "model_num_steps": own, "num_examples": count}
    return record.result("timestep_accuracy", rows, settings, model=model, began=began)


@contextmanager
def _simulated(model: Any, inputs: Tensor, num_steps: int | None, own: int) -> Iterator[int]:
    """How many timesteps the model simulates; ``num_steps`` of them inside, its ``own`` afterwards, if it can."""
    if num_steps is None or num_steps == own:
        yield own
        return
    if getattr(model, "num_steps", None) is None:
        if num_steps > own:
            raise ValueError(
                f"num_steps is {num_steps}, but the streams have {own} timesteps; give a number from 1 to {own}."
            )
        yield own
        return
    with torch.no_grad():
        expected = model(inputs)
    kept = model.num_steps
    try:
        model.num_steps = num_steps
        _check_longer(model, inputs, num_steps, expected)
        yield num_steps
    finally:
        model.num_steps = kept


def _check_longer(model: nn.Module, inputs: Tensor, num_steps: int, expected: Tensor) -> None:
    """ValueError unless the model runs for ``num_steps`` and gives the first logits it gives at its own T."""
    try:
        with torch.no_grad():
            logits = model(inputs)
    except (RuntimeError, ValueError, IndexError) as error:
        raise ValueError(
            f"num_steps is {num_steps}, but the model runs at {len(expected)} timesteps only ({error}); give None."
        ) from error
    shared = min(len(logits), len(expected))
    apart = (logits[:shared] - expected[:shared]).abs().amax((0, 2))
    # a spike at the threshold may flip between two orders of summation, so not every example has to agree
    if len(logits) != num_steps or bool(apart.min() > 1e-4 * expected.abs().max()):
        raise ValueError(
            f"num_steps is {num_steps}, but with it the model gives other logits for its first timesteps, or not "
            f"{num_steps} of them; give None, or a model whose num_steps may be set and that does not look ahead."
        )


def check_logits(logits: Tensor, num_steps: int, labels: Tensor | None = None) -> None:
    """ValueError unless the logits (T, N, C) of a batch are finite, have the T of the first batch and fit its labels."""
    if len(logits) != num_steps:
        raise ValueError(_other_length(len(logits), num_steps))
    if not logits.isfinite().all():
        raise ValueError("The model's logits are not finite; probe a checkpoint from before training diverged.")
    if labels is not None:
        check_labels("A batch", labels, logits.shape[-1])


_SEQUENCE, _STEPS = "time, examples", "examples"
_ORDERS: dict[
    str, Callable[[int, int], list[tuple[int, ...]]]
] = {  # the leading axes of what a layer is given, in each order that is understood
    _SEQUENCE: lambda t, n: [(t, n), (1, n)],
    "merged time, examples": lambda t, n: [(t * n,)],
    "merged examples, time": lambda t, n: [(n * t,)],
    "examples, time": lambda t, n: [(n, t)],
    _STEPS: lambda t, n: [(n,)],
}


@dataclass(frozen=True)
class Placement:
    """Where the tensors of one layer hold timesteps and examples."""

    order: str
    inputs: tuple[Tensor, ...]  # the layer's inputs, one per call, when the model is given the first example alone
    num_steps: int

    @property
    def stepwise(self) -> bool:
        """Whether the layer is called once for each timestep."""
        return self.order == _STEPS and len(self.inputs) == self.num_steps

    @property
    def once_per_timestep(self) -> bool:
        """Whether the layer runs once for each timestep, in as many calls or in one."""
        return self.stepwise or (len(self.inputs) == 1 and len(self.arrange(self.inputs[0])) == self.num_steps)

    def arrange(self, x: Tensor) -> Tensor:
        """``x`` as (S, N, ...): S is T, or 1 where a call holds one timestep or stands for all of them."""
        if self.order == _STEPS:
            return x.unsqueeze(0)
        if self.order == "merged time, examples":
            x = x.unflatten(0, (self.num_steps, -1))
        elif self.order == "merged examples, time":
            x = x.unflatten(0, (-1, self.num_steps))
        if self.order.endswith("examples, time"):
            x = x.transpose(0, 1)
        if len(x) not in (1, self.num_steps):
            raise ValueError(_other_length(len(x), self.num_steps))
        return x


def placements(model: nn.Module, layers: dict[str, nn.Module], inputs: Tensor, num_steps: int) -> dict[str, Placement]:
    """The placement of each of ``layers`` that the model uses, by name, in the order of first use.

    Found by running the model on two examples and on the first alone: the axis that shrinks is that of the examples,
    and in a merged axis the first example's values tell the order. Raises ValueError for a layer not understood.
    """
    pair = torch.cat([inputs[:1], _unlike(inputs[:1])])
    two, one = _inputs(model, layers, pair), _inputs(model, layers, pair[:1])
    return {name: _placement(name, layers[name], two[name], one[name], num_steps) for name in one}


def _unlike(inputs: Tensor) -> Tensor:
    """Inputs of the same shape that no other example equals, so that merged axes can be told apart."""
    generator = torch.Generator().manual_seed(0)
    if not inputs.is_floating_point():
        return inputs.flip(tuple(range(1, inputs.ndim)))
    factor = torch.rand(inputs.shape, generator=generator, dtype=torch.float64).to(inputs)
    return inputs * (0.5 + factor) + factor


def _placement(name: str, module: nn.Module, two: list[Tensor], one: list[Tensor], num_steps: int) -> Placement:
    def fits(order: str) -> bool:
        if len(one) != len(two) or (order == _STEPS and len(one) not in (1, num_steps)):
            return False
        return all(
            any(
                x.shape[: len(lead)] == lead and _leaves(module, x.ndim - len(lead))
                for lead in _ORDERS[order](num_steps, n)
            )
            for n, xs in ((2, two), (1, one))
            for x in xs
        )

    found = [Placement(order, tuple(one), num_steps) for order in _ORDERS if fits(order)]
    if not found:
        raise ValueError(
            f"Layer {name!r} is called {len(one)} times, first with an input of shape {tuple(two[0].shape)} for 2 "
            f"examples and T = {num_steps}; the probe understands one call with (T, N, ...), (N, T, ...) or these "
            "merged, and T calls with (N, ...)."
        )

    def doubt(placement: Placement) -> tuple[float, bool, bool]:
        a, b = placement.arrange(two[0])[:, :1].double(), placement.arrange(one[0]).double()
        return float((a - b).abs().sum()), not placement.stepwise, b.ndim < 3

    return min(found, key=doubt)


def _leaves(module: nn.Module, axes: int) -> bool:
    """Whether ``axes`` axes after those of time and examples are what the layer works on."""
    if isinstance(module, nn.modules.conv._ConvNd):
        return axes == 1 + len(module.kernel_size)
    return axes >= isinstance(module, nn.Linear)


def _inputs(model: nn.Module, layers: dict[str, nn.Module], inputs: Tensor) -> dict[str, list[Tensor]]:
    """What each layer is given, one tensor per call, in the order of first use."""
    found: dict[str, list[Tensor]] = {}

    def hook(name: str):
        def keep(module, args):
            found.setdefault(name, []).append(first_tensor(name, args).detach().clone())

        return keep

    handles = [module.register_forward_pre_hook(hook(name)) for name, module in layers.items()]
    try:
        with torch.no_grad():
            model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _other_length(found: int, num_steps: int) -> str:
    return f"The model returned {found} timesteps where it returned {num_steps} before; give streams of one length."
