"""A spiking layer's gradient with its own path through time cut, by running the layer alone."""

import torch
from torch import Tensor, nn

from snn_probe.adapters.spikingjelly import at_rest, single_step
from snn_probe.temporal import first_tensor

_FLIPPED = 1e-4  # largest fraction of spikes that a replay may change: another order of summation flips a few


def summed_norms(gradient: Tensor) -> Tensor:
    """(T, N, ...) -> (T,) on the CPU: the sum over examples of the L2 norm over the rest."""
    flat = gradient.reshape(*gradient.shape[:2], -1)
    return torch.linalg.vector_norm(flat, dim=2, dtype=torch.float64).sum(1).cpu()


def spatial_norms(module: nn.Module, currents: Tensor, spikes: Tensor, d_spikes: Tensor) -> Tensor:
    """Sums over examples (T,) of || dL/ds[t] ds[t]/dI[t] ||, by running the layer alone from rest.

    Between timesteps its memories keep their values and lose their history. ValueError where the layer does not let it.
    """
    from spikingjelly.activation_based import base

    if not isinstance(module, base.MemoryModule):
        raise ValueError("not a SpikingJelly neuron")
    sums, flipped = [], 0
    with at_rest(module), single_step(module):
        for current, expected, gradient in zip(currents, spikes, d_spikes, strict=True):
            leaf = current.clone().requires_grad_()
            emitted = first_tensor("", module(leaf))
            if not torch.equal(emitted, expected):
                flipped += int((~torch.isclose(emitted, expected, rtol=1e-4)).sum())
            (cut,) = torch.autograd.grad(emitted, leaf, gradient)
            sums.append(summed_norms(cut.unsqueeze(0)))
            _forget(module)
    if flipped > _FLIPPED * spikes.numel():
        raise ValueError("run alone it emits other spikes")
    return torch.cat(sums)


def _forget(module: nn.Module) -> None:
    """Cut the history of the memories of ``module``; unlike its own ``detach`` this changes no tensor."""

    def cut(value):
        if isinstance(value, Tensor):
            return value.detach()
        return type(value)(map(cut, value)) if type(value) in (list, tuple) else value

    for part in module.modules():
        memories = getattr(part, "_memories", {})
        memories.update({name: cut(value) for name, value in memories.items()})
