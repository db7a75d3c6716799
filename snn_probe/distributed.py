"""Many processes, started by torchrun: rank, world size, sums over ranks. Without torchrun everything is one process.

torchrun says in the environment who is who (RANK, WORLD_SIZE, LOCAL_RANK); nothing here starts a process.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if _grouped() else 0


def world_size() -> int:
    """How many processes work together."""
    return dist.get_world_size() if _grouped() else 1


@contextmanager
def processes(device: str | torch.device = "cpu") -> Iterator[None]:
    """Join the other processes that torchrun started (NCCL for CUDA devices, gloo otherwise) until the context ends."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ or _grouped():
        yield
        return
    dist.init_process_group("nccl" if torch.device(device).type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def own_device(device: str) -> torch.device:
    """``device`` as a torch device; "cuda" is this process's own GPU. ValueError for one that is not there."""
    try:
        found = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device is {device!r}; give cpu, cuda or cuda:N.") from None
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device is {device!r}, but this PyTorch sees no CUDA device; give cpu.")
    if found.type == "cuda" and found.index is None:
        found = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    if found.type == "cuda" and found.index >= torch.cuda.device_count():
        raise ValueError(f"device is {str(found)!r}, but there are {torch.cuda.device_count()} CUDA devices.")
    if found.type not in ("cpu", "cuda"):
        raise ValueError(f"device is {device!r}; give cpu, cuda or cuda:N.")
    return found


def share(indices: Tensor) -> tuple[Tensor, float]:
    """This process's part of a batch, and the factor by which its mean loss counts in the mean over processes.

    With n examples, of which n_r are here, and W processes the factor is n_r W / n, so that averaging gradients over
    processes gives the gradient of the mean over all examples. A process without an example repeats the first with
    factor 0.
    """
    world = world_size()
    own = indices[rank() :: world]
    if len(own) == 0:
        return indices[:1], 0.0
    return own, len(own) * world / len(indices)


def summed(values: Sequence[float], device: torch.device | str = "cpu") -> list[float]:
    """Sums over all processes, in float64."""
    if world_size() == 1:
        return list(values)
    found = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(found)
    return found.tolist()


def same_buffers(model: nn.Module) -> None:
    """Give every process the buffers (batch-norm statistics) of the first."""
    if world_size() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def wait() -> None:
    """Until every process is here."""
    if world_size() > 1:
        dist.barrier()


def _grouped() -> bool:
    return dist.is_available() and dist.is_initialized()
