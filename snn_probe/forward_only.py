"""Neurons and average pools when only values are wanted: the same bits as SpikingJelly's, without its autograd costs.

For values alone a multi-step LIF or IF runs as in training (:mod:`snn_probe.multistep_neurons`), which keeps nothing
but its spikes. A 2x2 average pool as three strided sums adds in the order of ``avg_pool2d`` and takes a third of its
time on the CPU. Only there is anything replaced: on CUDA both are one kernel.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from snn_probe.multistep_neurons import fast_forms
from snn_probe.neurons import running


@contextmanager
def values_only(model: nn.Module) -> Iterator[None]:
    """Within this context (and ``torch.no_grad``) the model's LIFNode, IFNode and AvgPool2d run as described above."""
    forms = fast_forms(model) + [(m, partial(_pool, m)) for m in model.modules() if _is_pool(m)]
    with running([(module, partial(_values, form, module.forward)) for module, form in forms]):
        yield


def _values(form: Callable[[Tensor], Tensor], original: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return original(x) if x.is_cuda or torch.is_grad_enabled() else form(x)


def _pool(pool: nn.Module, x: Tensor) -> Tensor:
    height, width = x.shape[-2] // 2 * 2, x.shape[-1] // 2 * 2
    top, bottom = x[..., 0:height:2, :width], x[..., 1:height:2, :width]
    total = torch.add(top[..., 0::2], top[..., 1::2])
    return total.add_(bottom[..., 0::2]).add_(bottom[..., 1::2]).mul_(0.25)


def _is_pool(module: nn.Module) -> bool:
    from spikingjelly.activation_based import layer

    return (
        type(module) is layer.AvgPool2d
        and "forward" not in module.__dict__
        and module.step_mode == "m"
        and module.kernel_size in (2, (2, 2))
        and module.stride in (2, (2, 2))
        and module.padding in (0, (0, 0))
        and not module.ceil_mode
        and module.divisor_override is None
    )
