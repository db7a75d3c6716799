"""The temporal contract: ``model(inputs) -> logits`` with logits (T, N, C), starting from rest at every call.

T timesteps (counted from 1 in tables), N examples, C classes. Every probe takes any ``nn.Module`` that keeps it.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from snn_probe.adapters.gradient_path import check_gradient_path
from snn_probe.adapters.promises import (
    check_apart,
    check_forgotten,
    check_not_probabilities,
    check_rank,
    check_repeatable,
    check_shape,
    evolved,
    first_logits,
    hint_at_images,
    seeded,
)
from snn_probe.adapters.snntorch import from_snntorch as from_snntorch
from snn_probe.adapters.spikingjelly import from_spikingjelly as from_spikingjelly
from snn_probe.adapters.states import attributes_kept, random_states_kept, remembered
from snn_probe.machine.allocation import freed_memory_kept
from snn_probe.machine.precision import full_precision

Batches = Iterable[tuple[Tensor, Tensor]]
"""Inputs (N, ...) and labels (N,) int64; re-iterable, the same order every time, no augmentation."""


def unrolled(model: nn.Module, inputs: Tensor) -> tuple[Tensor, ...] | None:
    """``model.unrolled(inputs)`` if the model has it and its layers allow it, else None."""
    method = getattr(model, "unrolled", None)
    if method is None:
        return None
    try:
        return method(inputs)
    except (ValueError, RuntimeError, TypeError, IndexError):
        return None


def spiking_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Modules that emit spikes through a surrogate gradient, by name, in the model's order."""
    return {
        name: module
        for name, module in model.named_modules()
        if hasattr(module, "surrogate_function") or hasattr(module, "spike_grad")
    }


def first_tensor(name: str, values: object) -> Tensor:
    """The first of a layer's inputs or outputs: its current, its spikes. ValueError if that is no tensor."""
    first = values[0] if isinstance(values, tuple) and values else values
    if not isinstance(first, Tensor):
        raise ValueError(f"Layer {name!r} has no tensor as first input or output; call it as layer(tensor).")
    return first


@contextmanager
def probing(model: nn.Module) -> Iterator[nn.Module]:
    """The context in which every probe runs.

    Inside, batch norm and dropout are in eval mode, spiking layers stay live (training flag on, unless they keep
    running statistics of their own), gradients can be taken, and float32 keeps its digits on CUDA too (no TF32). Afterwards, also after an exception, training flags,
    buffers, ``requires_grad``, ``.grad``, membrane states, hooks and all other attributes of the modules, and the
    random states of torch, numpy and Python are what they were.
    """
    parameters = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    devices = sorted({p.device.index for p, _, _ in parameters if p.device.type == "cuda"})
    with ExitStack() as stack:
        stack.enter_context(freed_memory_kept())
        stack.enter_context(full_precision())
        stack.enter_context(random_states_kept(devices))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(attributes_kept(list(model.modules())))
        try:
            model.eval()
            for layer in spiking_layers(model).values():
                if not any("running" in name for name, _ in layer.named_buffers()):
                    layer.train()
            yield model
        finally:
            for parameter, requires_grad, grad in parameters:
                parameter.requires_grad_(requires_grad)
                parameter.grad = grad


def check_temporal(
    model: nn.Module, inputs: Tensor, *, num_steps: int | None = None, num_classes: int | None = None
) -> int:
    """T, after running ``model`` on ``inputs`` (N, ...) and on part of them and comparing.

    Raises ValueError saying which promise broke and the fix: logits not (T, N, C), T or C other than ``num_steps`` or
    ``num_classes`` (where None, T is taken from the model's own ``num_steps`` if it has one), state carried over
    between calls, randomness, examples that influence each other, probabilities in place of logits, no gradient path,
    or one in training mode alone. Warns of trainable parameters without a gradient, and where a sigmoid ends
    the network, or inputs look like images whose channels are read as timesteps.
    Runs under :func:`probing`, so it leaves no trace.
    """
    if num_steps is None:
        num_steps = getattr(model, "num_steps", None)
    with probing(model):
        modules = list(model.modules())
        logits = first_logits(model, inputs)
        left = remembered(modules)
        # at once, with as many examples: many layers forget their state where that number changes
        other = seeded(model, inputs, 1)
        check_rank(model, logits)
        changed = evolved(left, remembered(modules))
        check_repeatable(model, logits, other, inputs)
        check_forgotten(model, other, inputs, modules, changed)
        check_shape(model, logits, inputs, num_steps, num_classes)
        check_apart(model, logits, inputs)
        check_not_probabilities(logits)
        check_gradient_path(model, logits, inputs)
        hint_at_images(model, inputs)
    return logits.shape[0]
