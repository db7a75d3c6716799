"""The same bits from the same seed on a GPU too."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def deterministically() -> Iterator[None]:
    """Within this context torch takes deterministic algorithms alone, and raises RuntimeError where there is none.

    cuBLAS reads its setting (CUBLAS_WORKSPACE_CONFIG) when CUDA is first used, so begin before that. On the CPU torch's
    algorithms are deterministic already.
    """
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        cudnn.deterministic, cudnn.benchmark = before[1:]
