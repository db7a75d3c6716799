"""LIF and IF neurons with their first derivative in closed form, one timestep at a time.

SpikingJelly's neurons spend most of a backward pass on elementwise operations that depend on the forward pass only.
Here they are done once: for the charge h = charge(v, x), the spike s = S(h - V_th) and the reset v' = reset(h, s),

    surrogate = S'(h - V_th)          through_time = dv'/dh = (1 - s) + (v_reset - h) S'   (hard reset)
                                                            = 1 - V_th S'                  (soft reset)
    dL/dh = dL/ds surrogate + dL/dv' through_time,   dL/dx = dL/dh dh/dx,   dL/dv = dL/dh dh/dv,

so each further backward pass costs three products. Spikes and gradients are those of the neuron replaced; second
derivatives are not offered (asking for them is an error), so curvature must run on the original neurons.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx, current, potential, neuron):
        reset = 0.0 if neuron.v_reset is None else neuron.v_reset
        tau = getattr(neuron, "tau", None)
        if tau is None:
            charged = potential + current
        elif neuron.decay_input:
            charged = potential + (current - (potential - reset)) / tau
        else:
            charged = potential - (potential - reset) / tau + current
        distance = charged - neuron.v_threshold
        if is_step(neuron.surrogate_function):
            spikes = torch.ge(distance, 0.0, out=torch.empty_like(distance))
            surrogate = derivative(neuron.surrogate_function, distance)
        else:
            spikes, surrogate = _fire(distance, neuron.surrogate_function)
        if neuron.v_reset is None:
            after = charged - spikes * neuron.v_threshold
            through_time = torch.ones_like(charged) if neuron.detach_reset else 1.0 - neuron.v_threshold * surrogate
        else:
            through_time = 1.0 - spikes
            after = through_time * charged
            if reset:
                after.add_(spikes, alpha=reset)
            if not neuron.detach_reset:
                through_time.addcmul_(reset - charged, surrogate)
        ctx.save_for_backward(surrogate, through_time)
        ctx.set_materialize_grads(False)
        ctx.per_current = 1.0 / tau if tau is not None and neuron.decay_input else 1.0
        ctx.leak = 1.0 if tau is None else 1.0 - 1.0 / tau
        return spikes, after

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, d_spikes, d_after):
        surrogate, through_time = ctx.saved_tensors
        d_charged = d_spikes * surrogate if d_spikes is not None else None
        if d_after is not None:
            d_charged = d_after * through_time if d_charged is None else d_charged.addcmul_(d_after, through_time)
        if d_charged is None:
            return None, None, None
        d_current = d_charged if ctx.per_current == 1.0 else d_charged * ctx.per_current
        d_potential = d_charged * ctx.leak if ctx.needs_input_grad[1] else None
        return d_current, d_potential, None


def _fire(distance: Tensor, surrogate_function: nn.Module) -> tuple[Tensor, Tensor]:
    """Spikes at ``distance`` = h - V_th, and the surrogate's derivative there."""
    with torch.enable_grad():
        leaf = distance.detach().requires_grad_()
        spikes = surrogate_function(leaf)
        (slope,) = torch.autograd.grad(spikes, leaf, torch.ones_like(leaf))
    return spikes.detach(), slope


_STEPS = (
    "PiecewiseQuadratic PiecewiseExp Sigmoid SoftSign SuperSpike ATan NonzeroSignLogAbs Erf PiecewiseLeakyReLU "
    "SquarewaveFourierSeries S2NN QPseudoSpike LeakyKReLU FakeNumericalGradient LogTailedReLU Rect"
).split()
"""SpikingJelly's surrogates that give 1 where h >= V_th and 0 elsewhere, and learn nothing themselves."""


def is_step(surrogate_function: Any) -> bool:
    """Whether this surrogate's forward is the plain step, 1 where h >= V_th."""
    from spikingjelly.activation_based import surrogate

    return type(surrogate_function) in [getattr(surrogate, name) for name in _STEPS] and bool(
        surrogate_function.spiking
    )


def derivative(surrogate_function: Any, distance: Tensor) -> Tensor:
    """S' at ``distance`` = h - V_th, which is overwritten; the papers' three surrogates in closed form, others by
    SpikingJelly's own."""
    from spikingjelly.activation_based import surrogate

    kind, alpha = type(surrogate_function), getattr(surrogate_function, "alpha", 1.0)
    if kind is surrogate.PiecewiseQuadratic:  # max(0, alpha - alpha^2 |x|)
        peak = torch.full((), alpha, dtype=distance.dtype, device=distance.device)
        return torch.sub(peak, distance.abs_(), alpha=alpha * alpha, out=distance).clamp_min_(0.0)
    if kind is surrogate.Sigmoid:  # alpha s (1 - s)
        distance.mul_(alpha).sigmoid_()
        return distance.addcmul_(distance, distance, value=-1).mul_(alpha)
    if kind is surrogate.ATan:  # (alpha / 2) / (1 + (pi alpha x / 2)^2)
        return distance.mul_(0.5 * math.pi * alpha).square_().add_(1.0).reciprocal_().mul_(0.5 * alpha)
    return _fire(distance, surrogate_function)[1]


def _forward(neuron: Any, current: Tensor) -> Tensor:
    (potential,) = neuron.materialize_states((current,), tuple(neuron._memories.values()), "s")
    spikes, neuron._memories["v"] = _Step.apply(current, potential, neuron)
    return marked_as_spikes(spikes) if is_step(neuron.surrogate_function) else spikes


def marked_as_spikes(spikes: Tensor) -> Tensor:
    """The same tensor, so that :func:`known_as_spikes` holds until it is changed in place."""
    if not spikes.is_inference():  # those count no changes
        spikes._snn_probe_spikes = spikes._version  # type: ignore[attr-defined]
    return spikes


def known_as_spikes(tensor: Tensor) -> bool:
    """Whether a neuron of this package gave it, as zeros and ones."""
    version = getattr(tensor, "_snn_probe_spikes", None)
    return version is not None and version == tensor._version


_METHODS = (
    "multi_step_forward single_step_forward neuronal_charge neuronal_fire neuronal_reset materialize_states".split()
)


def as_written(module: Any) -> bool:
    """Whether a LIFNode or IFNode computes what SpikingJelly wrote: no method replaced in it or its class, numbers for
    threshold, leak and reset, and a surrogate without hooks and replacements."""
    surrogate = module.surrogate_function
    numbers = [module.v_threshold, module.v_reset or 0.0, getattr(module, "tau", 1.0), getattr(surrogate, "alpha", 1.0)]
    hooks = [value for name, value in vars(surrogate).items() if name.endswith("_hooks")]
    return (
        not any(name in vars(module) for name in _METHODS)
        and all(_theirs(type(module), name) for name in _METHODS)
        and all(isinstance(number, int | float) for number in numbers)
        and not any(hooks)
        and not any(name in vars(surrogate) for name in ("forward", "spiking_function", "primitive_function"))
    )


def _theirs(kind: type, name: str) -> bool:
    method = getattr(kind, name, None)
    return method is None or getattr(method, "__module__", "").startswith("spikingjelly.")


def replaceable(module: nn.Module) -> bool:
    """True for plain LIFNode and IFNode whose only state is the potential, as SpikingJelly wrote them."""
    from spikingjelly.activation_based import neuron

    return (
        type(module) in (neuron.LIFNode, neuron.IFNode)
        and as_written(module)
        and not module.store_v_seq
        and getattr(module, "_neuron_precision", None) is None
    )


Forms = list[tuple[nn.Module, Callable]]
"""Modules, each with what stands for its forward."""


@contextmanager
def running(forms: Forms) -> Iterator[None]:
    """Within this context each of the modules runs what stands for its forward."""
    before = [(module, module.__dict__.get("forward")) for module, _ in forms]
    try:
        for module, form in forms:
            module.__dict__["forward"] = form
        yield
    finally:
        for module, own in before:
            if own is None:
                module.__dict__.pop("forward", None)
            else:
                module.__dict__["forward"] = own


@contextmanager
def first_order(model: nn.Module) -> Iterator[None]:
    """Within this context the model's single-step LIFNode and IFNode modules run as described above."""
    with running([(m, partial(_forward, m)) for m in model.modules() if replaceable(m) and m.step_mode == "s"]):
        yield
