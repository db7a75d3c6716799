"""Neurons when only values are wanted: the same bits as SpikingJelly's, without its autograd costs.

For values alone a multi-step LIF or IF runs as in training (:mod:`snn_probe.neurons.multi_step`), which keeps nothing
but its spikes. Only on the CPU is anything replaced: on CUDA each layer is one kernel.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from snn_probe.neurons.multi_step import fast_forms
from snn_probe.neurons.pooling import fast_pools
from snn_probe.neurons.single_step import running


@contextmanager
def values_only(model: nn.Module) -> Iterator[None]:
    """Within this context (and ``torch.no_grad``) the model's LIFNode and IFNode run as described above, and its average
    pools as in :mod:`snn_probe.neurons.pooling`."""
    neurons = [(module, partial(_values, form, module.forward)) for module, form in fast_forms(model)]
    with running([*neurons, *fast_pools(model)]):
        yield


def _values(form: Callable[[Tensor], Tensor], original: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return original(x) if x.is_cuda or torch.is_grad_enabled() else form(x)
