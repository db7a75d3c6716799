"""LIF and IF layers with first and second derivative in closed form: all timesteps are one node of the graph.

For the charge h_t = a v_{t-1} + b x_t + const, the spike s_t = S(h_t - V_th) and the reset v_t = R(h_t, s_t), with

    w_t = dv_t/dh_t = (1 - s_t) + (v_reset - h_t) S'_t,   dw_t/dh_t = -2 S'_t + (v_reset - h_t) S''_t   (hard reset)
                    = 1 - V_th S'_t,                                = -V_th S''_t                      (soft reset)

(a detached reset has S' = S'' = 0 in both), a loss whose derivative with respect to the spikes is g has the gradient
b l with respect to the currents, and differentiating that once more in the direction u gives n S' for g and b k for x:

    l_t = g_t S'_t + a w_t l_{t+1}                                          back in time,
    n_t = b u_t + a w_{t-1} n_{t-1}                                         forward in time: the tangent of h,
    k_t = n_t (g_t S''_t + a (dw_t/dh_t) l_{t+1}) + a w_t k_{t+1}           back in time.

S, S' and S'' come from the layer's own surrogate, once per forward pass; so a Hessian-vector product on a retained
graph costs a few elementwise products a timestep. Spikes, gradients and products are those of the layers replaced.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from snn_probe.neurons.pooling import fast_pools
from snn_probe.neurons.single_step import Forms, as_written, derivative, is_step, marked_as_spikes, running
from snn_probe.probes.convolutions import twice_differentiable
from snn_probe.probes.eval_norms import eval_norms


class _Layer(torch.autograd.Function):
    """currents (T, ...) and the potential before them -> spikes (T, ...) and the potential after them."""

    @staticmethod
    def forward(ctx, currents, potential, neuron):
        charges, emitted, after = [], [], potential
        for current in currents:
            h = _charge(neuron, current, after)
            s = neuron.surrogate_function(h - neuron.v_threshold)
            after = h - s * neuron.v_threshold if neuron.v_reset is None else s * neuron.v_reset + (1.0 - s) * h
            charges.append(h)
            emitted.append(s)
        spikes = torch.stack(emitted)
        if not any(ctx.needs_input_grad):
            return spikes, after
        charged = torch.stack(charges)
        slope, bend = _surrogate_derivatives(neuron.surrogate_function, charged - neuron.v_threshold)
        through, curve = _reset_derivatives(neuron, charged, spikes, slope, bend)
        ctx.leak, ctx.gain = _leak_and_gain(neuron)
        ctx.save_for_backward(currents, potential, slope, bend, through, curve)
        return spikes, after

    @staticmethod
    def backward(ctx, d_spikes, d_after):
        currents, potential, slope, bend, through, curve = ctx.saved_tensors
        if torch.is_grad_enabled():
            constants = (ctx.leak, ctx.gain, slope, bend, through, curve)
            return *_Gradient.apply(d_spikes, d_after, currents, potential, *constants), None
        adjoint = _back_in_time(d_spikes * slope, through, ctx.leak, d_after)
        return _scaled(adjoint, ctx.gain), adjoint[0] * ctx.leak if ctx.needs_input_grad[1] else None, None


class _Gradient(torch.autograd.Function):
    """The backward pass of ``_Layer`` as a function of the derivatives that enter it and of the layer's inputs."""

    @staticmethod
    def forward(ctx, d_spikes, d_after, currents, potential, leak, gain, slope, bend, through, curve):
        adjoint = _back_in_time(d_spikes * slope, through, leak, d_after)
        second = d_spikes * bend
        if curve is not None:
            second.addcmul_(curve, torch.cat([adjoint[1:] * leak, d_after.unsqueeze(0)]))
        ctx.leak, ctx.gain = leak, gain
        ctx.save_for_backward(slope, through, second)
        return _scaled(adjoint, gain), adjoint[0] * leak

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, u, u_potential):
        slope, through, second = ctx.saved_tensors
        tangent = _scaled(u, ctx.gain, copy=True)
        tangent[0].add_(u_potential, alpha=ctx.leak)
        for t in range(1, len(u)):
            tangent[t].addcmul_(through[t - 1], tangent[t - 1], value=ctx.leak)
        curved = _back_in_time(tangent * second, through, ctx.leak)
        d_after = tangent[-1] * through[-1]
        return tangent * slope, d_after, _scaled(curved, ctx.gain), curved[0] * ctx.leak, *[None] * 6


def _back_in_time(terms: Tensor, through: Tensor, leak: float, last: Tensor | None = None) -> Tensor:
    """y_t = terms_t + leak through_t y_{t+1}, in place of ``terms``; ``last``: leak y_{T+1}, zero if None."""
    if last is not None:
        terms[-1].addcmul_(through[-1], last)
    for t in range(len(terms) - 2, -1, -1):
        terms[t].addcmul_(through[t], terms[t + 1], value=leak)
    return terms


def _scaled(tensor: Tensor, factor: float, *, copy: bool = False) -> Tensor:
    if factor == 1.0:
        return tensor.clone(memory_format=torch.contiguous_format) if copy else tensor
    return tensor * factor


def _leak_and_gain(neuron: nn.Module) -> tuple[float, float]:
    """dh_t/dv_{t-1} and dh_t/dx_t."""
    tau = getattr(neuron, "tau", None)
    if tau is None:
        return 1.0, 1.0
    return 1.0 - 1.0 / tau, 1.0 / tau if neuron.decay_input else 1.0


def _charge(neuron: Any, current: Tensor, potential: Tensor) -> Tensor:
    """h_t, in SpikingJelly's order of operations: the same rounding."""
    tau, reset = getattr(neuron, "tau", None), neuron.v_reset or 0.0
    if tau is None:
        return potential + current
    if neuron.decay_input:
        return potential + (current - (potential - reset)) / tau
    return potential - (potential - reset) / tau + current


def _surrogate_derivatives(surrogate_function: nn.Module, distance: Tensor) -> tuple[Tensor, Tensor]:
    """S' and S'' at ``distance`` = h - V_th; zeros where the surrogate has no second derivative."""
    closed = _BENDS.get(type(surrogate_function).__name__)
    if closed is not None and is_step(surrogate_function):
        slope = derivative(surrogate_function, distance.clone())
        return slope, closed(distance, slope, surrogate_function.alpha)
    with torch.enable_grad():
        leaf = distance.detach().requires_grad_()
        (slope,) = torch.autograd.grad(surrogate_function(leaf).sum(), leaf, create_graph=True)
        bend = torch.autograd.grad(slope.sum(), leaf)[0] if slope.requires_grad else torch.zeros_like(slope)
    return slope.detach(), bend


_BENDS = {  # S'' from x, S' and alpha, of the papers' surrogates
    "PiecewiseQuadratic": lambda x, slope, alpha: (
        x.sign().mul_(-alpha * alpha).masked_fill_(x.abs() > 1.0 / alpha, 0.0)
    ),
    "Sigmoid": lambda x, slope, alpha: (x * (0.5 * alpha)).tanh_().mul_(slope).mul_(-alpha),
    "ATan": lambda x, slope, alpha: (x * slope).mul_(slope).mul_(-math.pi * math.pi * alpha),
}


def _reset_derivatives(neuron, charged, spikes, slope, bend) -> tuple[Tensor, Tensor | None]:
    """dv_t/dh_t and its derivative by h_t (None where that is zero)."""
    if neuron.v_reset is None:
        if neuron.detach_reset:
            return torch.ones_like(charged), None
        return 1.0 - neuron.v_threshold * slope, -neuron.v_threshold * bend
    if neuron.detach_reset:
        return 1.0 - spikes, None
    height = neuron.v_reset - charged
    return torch.addcmul(1.0 - spikes, height, slope), torch.addcmul(-2.0 * slope, height, bend)


class _Plain(nn.Module):
    """A surrogate that SpikingJelly does not know: it runs such neurons by its PyTorch reference, on every device."""

    def __init__(self, surrogate_function: nn.Module):
        super().__init__()
        self.inner = surrogate_function

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def _forward(neuron: Any, currents: Tensor) -> Tensor:
    (potential,) = neuron.materialize_states((currents,), tuple(neuron._memories.values()), "m")
    spikes, neuron._memories["v"] = _Layer.apply(currents, potential, neuron)
    return marked_as_spikes(spikes) if is_step(neuron.surrogate_function) else spikes


def _replaceable(module: nn.Module) -> bool:
    from spikingjelly.activation_based import neuron, surrogate

    return (
        type(module) in (neuron.LIFNode, neuron.IFNode)
        and as_written(module)
        and module.step_mode == "m"
        and not module.store_v_seq
        and "forward" not in module.__dict__
        and isinstance(module.surrogate_function, surrogate.SurrogateFunctionBase)  # elementwise, constants alone
        and not any(True for _ in module.surrogate_function.parameters())
    )


@contextmanager
def second_order(model: nn.Module) -> Iterator[None]:
    """Within this context the model's multi-step LIFNode and IFNode run as described above, on every device, its
    convolutions, batch norms and 2x2 average pools as in :mod:`snn_probe.probes.convolutions`,
    :mod:`snn_probe.probes.eval_norms` and :mod:`snn_probe.neurons.pooling`.

    SpikingJelly's other neurons run by its PyTorch reference: no fused kernel, in no reduced precision.
    """
    from spikingjelly.activation_based import neuron

    nodes = [m for m in model.modules() if isinstance(m, neuron.BaseNode)]
    replaced = [m for m in nodes if _replaceable(m)]
    others = [m for m in nodes if m not in replaced and isinstance(m.surrogate_function, nn.Module)]
    surrogates = [(m, m.surrogate_function) for m in others]
    precisions = [(m, m._neuron_precision) for m in nodes]
    try:
        for module in nodes:
            module._neuron_precision = None
        for module, surrogate_function in surrogates:
            module.surrogate_function = _Plain(surrogate_function)
        forms: Forms = [(module, partial(_forward, module)) for module in replaced]
        forms += [*twice_differentiable(model), *eval_norms(model), *fast_pools(model)]
        with running(forms):
            yield
    finally:
        for module, surrogate_function in surrogates:
            module.surrogate_function = surrogate_function
        for module, precision in precisions:
            module._neuron_precision = precision
