"""Neurons when only values are wanted: the same bits as SpikingJelly's, without its autograd costs.

For values alone a multi-step LIF or IF runs as in training (:mod:`snn_probe.neurons.multi_step`), which keeps nothing
but its spikes. Where a 2x2 average pool is run right behind it, so that nothing else reads the spikes, they are pooled
while they lie in the cache and never written to memory: zeros and ones are summed exactly in any order. Only on the
CPU is anything replaced: on CUDA each layer is one kernel.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from snn_probe.neurons.multi_step import at_start, charge_and_fire, fast_forms, in_blocks
from snn_probe.neurons.pooling import FastPool, fast_pools
from snn_probe.neurons.single_step import running


@contextmanager
def values_only(model: nn.Module) -> Iterator[None]:
    """Within this context (and ``torch.no_grad``) the model's LIFNode and IFNode run as described above, and its average
    pools as in :mod:`snn_probe.neurons.pooling`."""
    neurons = [(module, _Values(form, module.forward)) for module, form in fast_forms(model)]
    chains = [m for m in model.modules() if type(m) is nn.Sequential and "forward" not in m.__dict__]
    with running([*neurons, *fast_pools(model), *((chain, partial(_forward, chain)) for chain in chains)]):
        yield


class _Values:
    """What stands for a neuron's forward."""

    def __init__(self, form: Callable[[Tensor], Tensor], original: Callable[[Tensor], Tensor]):
        self.form, self.original = form, original

    def __call__(self, x: Tensor) -> Tensor:
        return self.original(x) if x.is_cuda or torch.is_grad_enabled() else self.form(x)


def _forward(chain: nn.Sequential, input: Any) -> Any:
    return in_turn(list(chain), input)


def in_turn(layers: Sequence[nn.Module], x: Any) -> Any:
    """The layers one after the other, of which nothing else reads what lies between."""
    pooled = False
    for i, layer in enumerate(layers):
        if pooled:  # with the spikes before it
            pooled = False
            continue
        pooled = i + 1 < len(layers) and _pooled_at_once(layer, layers[i + 1], x)
        if pooled:
            with running([(layer, partial(_pooled_or_not, layer, layer.forward, layers[i + 1].forward))]):
                x = layer(x)
        else:
            x = layer(x)
    return x


def _pooled_at_once(neuron: Any, pool: Any, x: Any) -> bool:
    """Whether these are a neuron and a pool as above, the pool takes the spikes as they are, and no hook looks at them."""
    return (
        not (torch.compiler.is_compiling() or torch.is_grad_enabled())
        and isinstance(neuron.__dict__.get("forward"), _Values)
        and isinstance(pool.__dict__.get("forward"), FastPool)
        and not (neuron._forward_hooks or pool._forward_hooks or pool._forward_pre_hooks)
        and not (hooks._global_forward_hooks or hooks._global_forward_pre_hooks)
        and getattr(pool, "step_mode", "s") == neuron.step_mode == "m"
        and _fits(x)
    )


def _fits(x: Any) -> bool:
    """Whether these are currents (T, N, C, H, W) whose spikes can be pooled in place."""
    return (
        isinstance(x, Tensor)
        and x.ndim == 5
        and x.dtype in (torch.float32, torch.float64)
        and not (x.is_cuda or x.shape[-1] % 2 or x.shape[-2] % 2)
        and x.numel() > 0
        and (x[0].is_contiguous() or x[0].is_contiguous(memory_format=torch.channels_last))
    )


def _pooled_or_not(neuron: Any, values: Callable, pool: Callable, currents: Tensor) -> Tensor:
    """Pooled spikes, of currents that hooks before the neuron may have changed."""
    return _pooled_spikes(neuron, currents) if _fits(currents) else pool(values(currents))


def _pooled_spikes(neuron: Any, currents: Tensor) -> Tensor:
    """Currents (T, N, C, H, W) to mean spikes (T, N, C, H / 2, W / 2), in the same order in memory."""
    plain = currents[0].is_contiguous()
    there, back = ((0, 1, 2, 3), (0, 1, 2, 3, 4)) if plain else ((0, 2, 3, 1), (0, 1, 4, 2, 3))
    potential = at_start(neuron, currents).permute(there)
    ordered = currents.permute(0, *(axis + 1 for axis in there))
    steps, inner, width = len(currents), 1 if plain else currents.shape[2], currents.shape[4]
    flat, start = ordered.flatten(1), potential.flatten()
    end, means = torch.empty_like(start), flat.new_empty(steps, flat.shape[1] // 4)
    for block, (charged, fired, _) in in_blocks(flat, start.dtype, unit=2 * width * inner):
        charge_and_fire(neuron, flat[:, block], end[block].copy_(start[block]), [charged[0]] * steps, fired)
        squares = fired.unflatten(1, (-1, 2, width // 2, 2, inner))
        rows = squares[:, :, 0] + squares[:, :, 1]
        mean = means[:, block.start // 4 : block.stop // 4].unflatten(1, (-1, width // 2, inner))
        torch.add(rows[:, :, :, 0], rows[:, :, :, 1], out=mean).mul_(0.25)
    neuron._memories["v"] = end.unflatten(0, potential.shape).permute([axis - 1 for axis in back[1:]])
    n, a, b, c = potential.shape
    return means.view(steps, n, *((a, b // 2, c // 2) if plain else (a // 2, b // 2, c))).permute(back)
