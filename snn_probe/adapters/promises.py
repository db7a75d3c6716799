"""The promises of the temporal contract, one check each: shape, rest, repeatability, independence, logits.

Each takes what the model returned for a few examples, runs it again where it must, and raises ValueError saying which
promise broke and the fix. :func:`snn_probe.temporal.check_temporal` puts them in order.
"""

import traceback
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from snn_probe.adapters.states import Place, seed_all, set_states

_WRAPPED = ("timestep", "time first", "examples first")  # what the adapters say that a network of streams takes
_FAR = 100.0  # times its own size, by which a state is moved to see whether it matters
_MOVES = ("Stack", "Cat", "View", "UnsafeView", "ReshapeAlias", "Transpose", "Permute", "Unsqueeze", "Squeeze", "Clone")


def seeded(model: nn.Module, inputs: Tensor, seed: int) -> Tensor:
    """What the model returns from the random state that belongs to this seed."""
    seed_all(seed)
    return model(inputs)


def first_logits(model: nn.Module, inputs: Tensor) -> Tensor:
    """The logits, or what is wrong with the inputs if the model does not take them."""
    try:
        return seeded(model, inputs, 0)
    except (RuntimeError, ValueError) as error:
        if _ours(error):
            raise
        weights = next((p.dtype for p in model.parameters() if p.is_floating_point()), inputs.dtype)
        if inputs.dtype != weights:
            raise ValueError(
                f"The model's weights are {weights} but the inputs {inputs.dtype}, and its forward does not take them; "
                f"give inputs.to({weights})."
            ) from error
        if getattr(model, "takes", None) in _WRAPPED:
            shown = (
                "streams (N, T, ...)" if model.num_steps is None else f"images (N, ...), shown {model.num_steps} times"
            )
            other = "static images give num_steps" if model.num_steps is None else "streams give num_steps=None"
            raise ValueError(
                f"The network does not take inputs of shape {tuple(inputs.shape)}, read as {shown} and given to it as "
                f"{model.takes!r} ({str(error).splitlines()[0]}); for {other}, or give what its forward takes with takes."
            ) from error
        raise


def _ours(error: BaseException) -> bool:
    """Whether this package raised it, so that it says what to do."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_globals.get("__name__", "").startswith("snn_probe.")


def check_rank(model: nn.Module, logits: Tensor) -> None:
    """That the model returned one tensor with three axes."""
    if not isinstance(logits, Tensor) or logits.ndim != 3:
        came = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"The model returned {came}; a temporal model returns logits (T, N, C): one row of C logits for each "
            f"timestep and example, before any mean over time{_wrapping(model, logits)}."
        )


def check_shape(
    model: nn.Module, logits: Tensor, inputs: Tensor, num_steps: int | None, num_classes: int | None
) -> None:
    """That the axes are timesteps, examples and classes, as many as asked for; one example fewer tells which is N."""
    n = len(inputs)
    fewer = seeded(model, inputs[: n - 1], 0) if n > 1 else None
    if fewer is not None and logits.shape[1] == n and fewer.shape[1:] == (n - 1, *logits.shape[2:]):
        _check_length(logits, fewer)
    batch_axis = logits.shape[1] == n and (fewer is None or fewer.shape == (logits.shape[0], n - 1, logits.shape[2]))
    if not batch_axis:
        swapped = logits.shape[0] == n and (fewer is None or fewer.shape[0] == n - 1)
        hint = "time and batch are swapped: return logits.transpose(0, 1)" if swapped else "the second axis must be N"
        if swapped and getattr(model, "takes", None) == "time first":
            hint += ", or wrap the network with takes='examples first' if its own forward takes (N, T, ...)"
        raise ValueError(f"The model returned logits {tuple(logits.shape)} for {n} examples, not (T, {n}, C); {hint}.")
    if num_steps is not None and logits.shape[0] != num_steps:
        raise ValueError(
            f"The model returned {logits.shape[0]} timesteps where T is {num_steps}; "
            "return the logits of every timestep, time first."
        )
    if logits.shape[2] < 2 or (num_classes is not None and logits.shape[2] != num_classes):
        allowed = "at least 2" if num_classes is None else num_classes
        raise ValueError(
            f"The model returned {logits.shape[2]} logits per example where {allowed} classes are expected; "
            "give the last linear layer one output per class."
        )


def _wrapping(model: nn.Module, logits: Tensor) -> str:
    """What an adapter could do about logits of another rank."""
    if not hasattr(model, "takes"):
        return "; wrap a network of SpikingJelly or snnTorch with from_spikingjelly or from_snntorch"
    if isinstance(logits, Tensor) and logits.ndim == 4:
        return "; its own forward runs over time, so say with takes what it is given (time first, image, ...)"
    return ""


def _check_length(logits: Tensor, again: Tensor) -> None:
    if len(again) != len(logits):
        raise ValueError(
            f"The model returned {len(logits)} timesteps, and {len(again)} when called again on the same inputs; "
            "let T depend on nothing but their shape."
        )


def check_repeatable(model: nn.Module, logits: Tensor, other: Tensor, inputs: Tensor) -> None:
    """``other``: from another random state. Where that differs, the same random state tells noise from state."""
    _check_length(logits, other)
    if _same(logits, other):
        return
    again = [seeded(model, inputs, seed) for seed in (0, 0, 1)]  # twice the same: a state may come and go
    if all(_same(one, z) for one, z in zip((logits, logits, other), again, strict=True)):
        drops = [repr(n) for n, m in model.named_modules() if m.training and "Drop" in type(m).__name__]
        fix = (
            f"let {drops[0]}, which is in training mode," if drops else "remove the noise (of a Poisson encoder, say),"
        )
        fix += " follow eval mode" if drops else " or draw it from a generator that forward seeds itself"
        raise ValueError(f"The model's logits depend on the random state even in eval mode; {fix}.")
    raise _state_carried()


def evolved(before: Mapping[Place, Tensor], after: Mapping[Place, Tensor]) -> dict[Place, Tensor]:
    """The states after two calls that are not what they were after the first, which began from rest like the second."""
    return {place: value for place, value in after.items() if place in before and not _equal(before[place], value)}


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(torch.equal(a, b))


def check_forgotten(
    model: nn.Module, logits: Tensor, inputs: Tensor, modules: list[nn.Module], changed: Mapping[Place, Tensor]
) -> None:
    """That states which evolved from call to call do not matter, whatever they are: a few examples may not show it."""
    for sign in (1.0, -1.0) if changed else ():
        far = {
            place: value + sign * _FAR * (1.0 + value.abs().max()) for place, value in changed.items() if value.numel()
        }
        set_states(modules, far)
        if not _same(logits, seeded(model, inputs, 1)):
            raise _state_carried()


def _state_carried() -> ValueError:
    return ValueError(
        "The model gives other logits when called again on the same inputs, so state is carried over between calls; "
        "reset it at the start of forward, or wrap the network with from_spikingjelly or from_snntorch."
    )


def check_apart(model: nn.Module, logits: Tensor, inputs: Tensor) -> None:
    """The last and the first example's logits with the others replaced by copies of it: as many, so not even rounding
    differs.

    The last one, because in a network that takes examples for timesteps the first depends on no other; the first,
    because others look ahead, or divide by the largest of the batch, which either may be.
    """
    copies = ((i, seeded(model, inputs[i : i + 1].expand_as(inputs).contiguous(), 0)) for i in (len(inputs) - 1, 0))
    if len(inputs) == 1 or all(_same(logits[:, i], copied[:, i]) for i, copied in copies):
        return
    if not all(_same(logits, seeded(model, inputs, 0)) for _ in range(2)):  # twice: a state may come and go
        raise _state_carried()
    norms = [
        repr(name)
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (module.training or module.running_mean is None)
    ]
    reason = (
        f"batch norm {norms[0]} uses the statistics of the batch; let it use running statistics in eval mode"
        if norms
        else "if time and batch are swapped inside the network, give each layer the order that it is written for"
    )
    raise ValueError(
        f"The logits of an example depend on the other examples of its batch, even in eval mode; {reason}."
    )


def check_not_probabilities(logits: Tensor) -> None:
    """That no softmax has made the logits sum to 1; a warning where a sigmoid ends the network."""
    z = logits.detach()
    graded = bool(((z > 0) & (z < 1)).any())  # spikes of one neuron per row also sum to 1
    if graded and bool((z >= 0).all()) and bool(((z.sum(-1) - 1).abs() <= 1e-3).all()):
        raise ValueError(
            "The model returned probabilities (each row sums to 1) where logits are expected; return what the softmax "
            "is given."
        )
    if _last_operation(logits) == "Sigmoid":
        warnings.warn(
            "A sigmoid ends the network, so the model returned probabilities where logits are expected; return what the "
            "sigmoid is given.",
            stacklevel=3,
        )


def _last_operation(logits: Tensor) -> str:
    """What computed the values, without what only puts them in another place: "Sigmoid", "Addmm", ..."""
    node: Any = logits.grad_fn
    while node is not None:
        name = node.name().removesuffix("0").removesuffix("Backward")
        if name not in _MOVES or not node.next_functions:
            return name
        node = node.next_functions[0][0]
    return ""


def hint_at_images(model: nn.Module, inputs: Tensor) -> None:
    """A warning where a wrapped network is given what looks like images (N, C, H, W) and reads streams (N, T, ...)."""
    wrapped = getattr(model, "takes", None) in _WRAPPED and getattr(model, "num_steps", 0) is None
    if wrapped and inputs.ndim == 4 and inputs.shape[1] in (1, 3) and min(inputs.shape[2:]) > 3:
        warnings.warn(
            f"Inputs of shape {tuple(inputs.shape)} are read as streams of {inputs.shape[1]} timesteps; if they are "
            "images, give num_steps when wrapping the network.",
            stacklevel=3,
        )


def _same(a: Tensor, b: Tensor) -> bool:
    """Equal up to the rounding of a different order of summation."""
    if a.shape != b.shape:
        return False
    scale = a.detach().abs().max().clamp_min(torch.finfo(a.dtype).tiny)
    return bool(((a - b).detach().abs().max() <= 1e-4 * scale) | (a.isnan().any() & b.isnan().any()))
