"""Full precision of float32 products and convolutions: CUDA devices may round their factors to ten bits (TF32), and
processors to eight (bfloat16), where PyTorch is told so; cuDNN's convolutions are by default."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def full_precision() -> Iterator[None]:
    """Within this context float32 convolutions and products of matrices keep all their digits on CUDA devices."""
    switches = _switches()
    before = [getattr(place, name) for place, name, _ in switches]
    try:
        for place, name, full in switches:
            setattr(place, name, full)
        yield
    finally:
        for (place, name, _), value in zip(switches, before, strict=True):
            setattr(place, name, value)


def _switches() -> list[tuple[Any, str, Any]]:
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    if hasattr(products, "fp32_precision"):  # PyTorch 2.9 and later, which refuse to mix both ways
        return [(place, "fp32_precision", "ieee") for place in (cudnn.conv, cudnn.rnn, products)]  # type: ignore[attr-defined]
    return [(place, "allow_tf32", False) for place in (cudnn, products)]
