"""torch.compile of a model's training forward."""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from snn_probe.neurons.multi_step import fast_forms
from snn_probe.neurons.pooling import fast_pools
from snn_probe.neurons.single_step import running
from snn_probe.penalty import compiled_penalty

ON_CPU: dict[str, Any] = {"layout_optimization": False}
"""Channels last, Inductor's own choice too, gives wrong gradients of bfloat16 networks on the CPU: in torch 2.11 the
gradient below a pool with a convolution after it was seven times too large."""


class CompiledForward:
    """The model's forward, compiled for batches of one size; batches of another size run as they are.

    A second size would be compiled anew, for a last smaller batch in longer than it takes to train on it. The resets of
    networks in an adapter stay outside, as they cannot be traced. Inputs must be contiguous on the CPU. Neurons are
    those of :func:`snn_probe.neurons.multi_step.fast_training`. Numbers
    change by rounding. Raises ValueError on the CPU where there is no C++ compiler.
    """

    def __init__(self, model: nn.Module, device: torch.device):
        if device.type == "cpu" and not _compiler():
            raise ValueError(
                "compile is true but there is no C++ compiler (g++ or clang++, or what CXX names) on the path; install "
                "one, or train without it."
            )
        torch.compiler.reset()  # what an earlier model left counts towards the limit of versions of one function
        self.model, self.name = model, "from_rest" if hasattr(model, "from_rest") else "forward"
        options = ON_CPU if device.type == "cpu" else None
        self.compiled = torch.compile(getattr(model, self.name), dynamic=False, options=options)
        self.forms = [
            *fast_forms(model),
            *fast_pools(model),
        ]  # always the same ones: other objects would be compiled anew
        self.size: int | None = None

    @contextmanager
    def on(self, inputs: Tensor) -> Iterator[None]:
        """Within this context the model runs compiled, if ``inputs`` has as many examples as the first ones had."""
        self.size = self.size or len(inputs)
        with ExitStack() as stack:
            stack.enter_context(compiled_penalty())
            if len(inputs) == self.size:
                stack.enter_context(running(self.forms))
                self.model.__dict__[self.name] = self.compiled
                stack.callback(self.model.__dict__.pop, self.name)
            yield


def _compiler() -> str | None:
    names = [os.environ.get("CXX") or "g++", "clang++"]
    return next((found for name in names if (found := shutil.which(name))), None)
