"""Many processes, started by torchrun: rank, world size, sums over ranks. Without torchrun everything is one process.

torchrun says in the environment who is who (RANK, WORLD_SIZE, LOCAL_RANK); nothing here starts a process.

Training always works with all processes. A probe does so only inside :func:`dealing`, so that a program of several
processes may also call a probe in one of them alone. Inside it every process calls the same probes with the same
model and batches, reads and checks all examples, and computes with every W-th batch (:func:`dealt`); sums and counts
are added over processes (:func:`pooled`) before anything is divided, so each has the answer of one process alone.
"""

import importlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")

_depth = 0  # of dealing contexts that are open


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if _grouped() else 0


def world_size() -> int:
    """How many processes work together."""
    return dist.get_world_size() if _grouped() else 1


@contextmanager
def processes(device: str | torch.device = "cpu") -> Iterator[None]:
    """Join the other processes that torchrun started until the context ends.

    Tensors on the CPU go through gloo; those on CUDA devices, if ``device`` is one, through NCCL.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ or _grouped():
        yield
        return
    # Its functions have the group that exists at its import as a default, so imported later it would keep this one, and
    # the group's threads with it; those abort the program if they free a tensor while Python ends.
    importlib.import_module("torch.distributed.nn.functional")
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.device(device).type == "cuda" else "gloo")
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
        raise ValueError(
            f"device is {str(found)!r}, but there are {torch.cuda.device_count()} CUDA devices; "
            f"give cuda:0 to cuda:{torch.cuda.device_count() - 1}, or cuda."
        )
    if found.type not in ("cpu", "cuda"):
        raise ValueError(f"device is {device!r}; give cpu, cuda or cuda:N.")
    return found


def in_turn(device: str) -> list[str]:
    """The devices that processes which work each for itself take in turn: every CUDA device for "cuda"."""
    count = torch.cuda.device_count() if device == "cuda" else 0
    return [f"cuda:{number}" for number in range(count)] or [device]


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


@contextmanager
def dealing() -> Iterator[None]:
    """Within this context probes deal their batches to the processes; all of them must call the same probes alike."""
    global _depth
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1


def members() -> int:
    """How many processes share a probe's work: all of them inside :func:`dealing`, else 1."""
    return world_size() if _depth else 1


def leads() -> bool:
    """Whether this process is the one, of those that share the work, that writes and says something."""
    return members() == 1 or rank() == 0


def dealt(items: Iterable[T]) -> Iterator[T]:
    """This process's items, every ``members()``-th; all are read, in every process."""
    return islice(items, rank(), None, members()) if members() > 1 else iter(items)


def pooled(tensor: Tensor) -> Tensor:
    """The sum of ``tensor`` over the processes that share the work, on its device; the same bits in each of them."""
    if members() == 1:
        return tensor
    moved = tensor.detach().clone() if _carried(tensor.device) else tensor.detach().to(_carrier())
    dist.all_reduce(moved)
    return moved.to(tensor.device)


def gathered(value: T) -> list[T]:
    """What each of the processes that share the work gives, by rank; values that can be pickled, no CUDA tensors."""
    if members() == 1:
        return [value]
    found: list[Any] = [None] * members()
    dist.all_gather_object(found, value)
    return found


def told(tensor: Tensor) -> Tensor:
    """The first process's ``tensor`` in all that share the work; one of this shape and type must be given by each."""
    if members() == 1:
        return tensor
    moved = tensor.detach().clone() if _carried(tensor.device) else tensor.detach().to(_carrier())
    dist.broadcast(moved, 0)
    return moved.to(tensor.device)


@contextmanager
def together() -> Iterator[None]:
    """Work that each of the processes does by itself: if it fails in one it fails in all, so none waits for another.

    Where the error did not happen a ValueError is raised as the same ValueError, any other as a RuntimeError that names
    the process. What does not end in an Exception (an interrupt) is not announced: torchrun stops the others.
    """
    error: Exception | None = None
    try:
        yield
    except Exception as caught:
        if members() == 1:
            raise
        error = caught
    if not pooled(torch.tensor(float(error is not None))):
        return
    announced = gathered(None if error is None else (isinstance(error, ValueError), type(error).__name__, str(error)))
    if error is not None:
        raise error
    for number, failure in enumerate(announced):
        if failure is not None:
            foreseen, kind, said = failure
            raise ValueError(said) if foreseen else RuntimeError(f"Process {number} stopped with {kind}: {said}")


def _carried(device: torch.device) -> bool:
    """Whether the processes' backend takes tensors of this device."""
    return device.type in {entry.split(":")[0] for entry in dist.get_backend_config().split(",")}


def _carrier() -> torch.device:
    """A device of which the processes' backend takes tensors."""
    return torch.device("cpu" if _carried(torch.device("cpu")) else "cuda")


def _grouped() -> bool:
    return dist.is_available() and dist.is_initialized()
