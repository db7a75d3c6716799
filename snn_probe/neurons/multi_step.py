"""LIF and IF neurons for training: all T timesteps at once, with SpikingJelly's spikes and gradients, in less time.

For the charge h[t] = charge(v[t-1], x[t]), the spike s[t] = 1 where h[t] >= V_th, the reset v[t] = reset(h[t], s[t])
and the surrogate derivative S' at h[t] - V_th,

    through[t] = dv[t]/dh[t] = (1 - s[t]) + (v_reset - h[t]) S'    (hard reset; without the last term where detached)
                             = 1 - V_th S'                         (soft reset; 1 where detached)
    dL/dh[t] = dL/ds[t] S' + leak through[t] dL/dh[t+1],           dL/dx[t] = dL/dh[t] dh[t]/dx[t],

so backward through time is one product a timestep after a few sweeps over all of them. Neurons are dealt in blocks that
stay in the cache for all T timesteps, and h is computed again in the backward pass instead of being stored: only the
input is kept. Any order of the axes in memory (channels last) is kept.

bfloat16 and float16 inputs: potentials and derivatives are float32, spikes and gradients have the input's dtype.
(SpikingJelly's own node rounds its potential to the input's dtype at every timestep on the CPU.) First derivatives
only: a graph of the gradient is refused, so curvature must run on other neurons.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from snn_probe.neurons.pooling import fast_pools
from snn_probe.neurons.single_step import Forms, derivative, is_step, marked_as_spikes, replaceable, running

BLOCK = 1 << 16
"""Neurons per thread and block on the CPU: T = 4 to 10 timesteps of a few float32 arrays stay in a core's own cache."""


@contextmanager
def fast_training(model: nn.Module) -> Iterator[None]:
    """Within this context the model's multi-step LIFNode and IFNode modules run as described above, and its 2x2 average
    pools as in :mod:`snn_probe.neurons.pooling`.

    Left alone: single-step nodes, subclasses, nodes that store their potentials or have a precision of their own, and
    surrogates that are not SpikingJelly's or do not emit spikes ("relaxed" forwards). On CUDA SpikingJelly's fused
    kernels run, with a float32 potential whatever the input's dtype.
    """
    with running([*fast_forms(model), *fast_pools(model)]):
        yield


def fast_forms(model: nn.Module) -> Forms:
    """The neurons that :func:`fast_training` replaces, and with what."""
    return [(m, partial(_forward, m)) for m in model.modules() if _replaceable(m)]


def _replaceable(module: nn.Module) -> bool:
    if not replaceable(module) or module.step_mode != "m" or "forward" in module.__dict__:
        return False
    return is_step(module.surrogate_function)


def _forward(neuron: Any, currents: Tensor) -> Tensor:
    if neuron.step_mode != "m":  # the network changed it while these forms run
        return type(neuron).forward(neuron, currents)
    potential = at_start(neuron, currents)
    if torch.compiler.is_compiling():
        run = _traced
    else:
        run = _fused if currents.is_cuda else _blocked
    spikes, neuron._memories["v"] = run(neuron, currents, potential)
    return spikes if torch.compiler.is_compiling() else marked_as_spikes(spikes)


def at_start(neuron: Any, currents: Tensor) -> Tensor:
    """The potential before the first timestep, float32 or wider."""
    wide = torch.float64 if currents.dtype == torch.float64 else torch.float32
    state = neuron._memories["v"]
    if isinstance(state, float):  # at rest
        return torch.full((), state, dtype=wide, device=currents.device).expand(currents.shape[1:])
    return neuron.materialize_states((currents,), (state,), "m")[0].to(wide)


def _traced(neuron: Any, currents: Tensor, potential: Tensor) -> tuple[Tensor, Tensor]:
    """Timestep by timestep as it is written in books: torch.compile fuses the loop, its derivative and the layers next
    to it, and decides what to compute again in the backward pass."""
    tau, rest, threshold = getattr(neuron, "tau", None), neuron.v_reset or 0.0, neuron.v_threshold
    spikes = []
    for current in currents.unbind():
        if tau is None:
            charged = potential + current
        elif neuron.decay_input:
            charged = potential + (current - (potential - rest)) / tau
        else:
            charged = potential - (potential - rest) / tau + current
        fired = neuron.surrogate_function(charged - threshold)
        spikes.append(fired.to(currents.dtype))
        fired = fired.detach() if neuron.detach_reset else fired
        potential = charged - threshold * fired if neuron.v_reset is None else rest * fired + (1.0 - fired) * charged
    return torch.stack(spikes), potential


def _fused(neuron: Any, currents: Tensor, potential: Tensor) -> tuple[Tensor, Tensor]:
    """SpikingJelly's own kernels, which it uses where the potential is float32."""
    from spikingjelly.activation_based import functional

    rest = (neuron.v_threshold, neuron.v_reset, neuron.surrogate_function, neuron.detach_reset)
    potential = potential.contiguous()
    if hasattr(neuron, "tau"):
        return functional.lif_multi_step(currents, potential, neuron.tau, neuron.decay_input, *rest)[:2]
    return functional.if_multi_step(currents, potential, *rest)[:2]


def _blocked(neuron: Any, currents: Tensor, potential: Tensor) -> tuple[Tensor, Tensor]:
    axes = sorted(range(1, currents.ndim), key=currents.stride, reverse=True)
    ordered = currents.permute(0, *axes)  # as in memory, so that flattening the neurons is no copy
    potential = potential.permute([axis - 1 for axis in axes])
    spikes, last = _Neurons.apply(ordered.flatten(1), potential.flatten(), neuron)
    back = sorted(range(len(axes)), key=axes.__getitem__)
    spikes = spikes.unflatten(1, ordered.shape[1:]).permute(0, *(axis + 1 for axis in back))
    return spikes, last.unflatten(0, ordered.shape[1:]).permute(back)


class _Neurons(torch.autograd.Function):
    """Currents (T, M) and potentials at the start (M,) to spikes (T, M) and potentials at the end (M,)."""

    @staticmethod
    def forward(ctx, currents, start, neuron):
        spikes, end = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (currents, start))
        for block, (charged, fired, _) in in_blocks(currents, start.dtype):
            found = spikes[:, block]
            fired = found if found.dtype == fired.dtype else fired
            here = [charged[0]] * len(currents)  # of no use once it has fired
            charge_and_fire(neuron, currents[:, block], end[block].copy_(start[block]), here, fired)
            if fired is not found:
                found.copy_(fired)
        ctx.save_for_backward(currents, start)
        ctx.neuron = neuron
        ctx.set_materialize_grads(False)
        return spikes, end

    @staticmethod
    def backward(ctx, d_spikes, d_end):
        if torch.is_grad_enabled():
            raise RuntimeError(
                "A graph of the gradient was asked for (create_graph=True) where fast_training gives first derivatives "
                "only; take second derivatives outside fast_training."
            )
        currents, start = ctx.saved_tensors
        d_spikes = torch.zeros_like(currents) if d_spikes is None else d_spikes
        d_currents, d_start = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (currents, start))
        leak, per_current = _charge_slopes(ctx.neuron)
        for block, (charged, fired, potential) in in_blocks(currents, start.dtype):
            charge_and_fire(ctx.neuron, currents[:, block], potential.copy_(start[block]), charged, fired)
            surrogate, through = _slopes(ctx.neuron, charged, fired)
            d_charged = surrogate.mul_(d_spikes[:, block])
            if d_end is not None:
                d_charged[-1].addcmul_(d_end[block], through[-1])
            for t in range(len(currents) - 2, -1, -1):
                d_charged[t].addcmul_(d_charged[t + 1], through[t], value=leak)
            torch.mul(d_charged[0], leak, out=d_start[block])
            d_currents[:, block] = d_charged if per_current == 1.0 else d_charged.mul_(per_current)
        return d_currents, d_start, None


def in_blocks(
    currents: Tensor, dtype: torch.dtype, *, unit: int = 1
) -> Iterator[tuple[slice, tuple[Tensor, Tensor, Tensor]]]:
    """Ranges of neurons, whole multiples of ``unit``, each with room to work in, used again for every block: two arrays
    (T, size), one (size,)."""
    steps, neurons = currents.shape
    size = max(unit, min(neurons, BLOCK * torch.get_num_threads()) // unit * unit)
    charged, fired = (torch.empty((steps, size), dtype=dtype, device=currents.device) for _ in range(2))
    potential = torch.empty(size, dtype=dtype, device=currents.device)
    for begin in range(0, neurons, size):
        here = min(size, neurons - begin)
        yield slice(begin, begin + here), (charged[:, :here], fired[:, :here], potential[:here])


def charge_and_fire(
    neuron: Any, currents: Tensor, potential: Tensor, charged: Tensor | list[Tensor], fired: Tensor
) -> None:
    """Fill ``charged`` and ``fired`` (T, size); ``potential`` goes from before the first to after the last timestep.

    SpikingJelly's order of operations, so that the rounding, hence every spike, is the same.
    """
    tau, rest = getattr(neuron, "tau", None), neuron.v_reset or 0.0
    for current, h, spike in zip(currents, charged, fired, strict=True):
        if tau is None:
            torch.add(potential, current, out=h)
        elif tau == 2.0 and rest == 0.0 and not neuron.decay_input:
            torch.add(current, potential, alpha=0.5, out=h)  # halving is exact, so the order does not matter
        else:
            torch.sub(potential, rest, out=h)
            if neuron.decay_input:
                torch.sub(current, h, out=h).div_(tau).add_(potential)
            else:
                torch.sub(potential, h.div_(tau), out=h).add_(current)
        torch.ge(h, neuron.v_threshold, out=spike)
        if neuron.v_reset is None:
            torch.sub(h, spike, alpha=neuron.v_threshold, out=potential)
        else:
            torch.addcmul(h, h, spike, value=-1, out=potential)
            if rest:
                potential.add_(spike, alpha=rest)


def _charge_slopes(neuron: Any) -> tuple[float, float]:
    """dh[t]/dv[t-1] and dh[t]/dx[t]."""
    tau = getattr(neuron, "tau", None)
    return (1.0, 1.0) if tau is None else (1.0 - 1.0 / tau, 1.0 / tau if neuron.decay_input else 1.0)


def _slopes(neuron: Any, charged: Tensor, fired: Tensor) -> tuple[Tensor, Tensor]:
    """S' at h - V_th and dv/dh, for ``charged`` h and ``fired`` s, the second written over ``fired``."""
    surrogate = derivative(neuron.surrogate_function, charged - neuron.v_threshold)
    one = torch.ones((), dtype=charged.dtype, device=charged.device)
    if neuron.v_reset is not None:
        torch.sub(one, fired, out=fired)
        if not neuron.detach_reset:
            if neuron.v_reset:
                fired.add_(surrogate, alpha=neuron.v_reset)
            fired.addcmul_(charged, surrogate, value=-1)
    elif neuron.detach_reset:
        fired.fill_(1.0)
    else:
        torch.sub(one, surrogate, alpha=neuron.v_threshold, out=fired)
    return surrogate, fired
