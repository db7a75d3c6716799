"""The examples of a probe that passes over them many times, and digests that tell one measurement from another."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from snn_probe.distributed import dealt, members, rank
from snn_probe.probes.batching import on_device
from snn_probe.temporal import Batches

HELD_BYTES = 2**31  # examples of up to this size stay on the model's device; more are read anew for each pass


class Examples:
    """Batches for many passes: checked once and, if they are small enough, kept on the device.

    ``first`` holds two inputs, ``extremes`` the least and greatest label, ``count`` the number of examples, ``sha256`` tells them apart from others, however they
    are split into batches. Where processes share the work these four are of all examples; iterating gives, and the
    device keeps, this process's batches. Raises ValueError for batches that break their contract.
    """

    def __init__(self, batches: Batches, device: torch.device):
        self.batches, self.device = batches, device
        self.held: list[tuple[Tensor, Tensor]] | None = []
        self.order: Callable[[Tensor], Tensor] = lambda inputs: inputs
        self.first: Any = None  # inputs of two examples
        self.count = 0
        extremes = []
        size, hashes = 0, (hashlib.sha256(), hashlib.sha256())
        for number, pair in enumerate(on_device(batches, device)):
            self.first = pair[0][:2] if self.first is None else self.first
            self.count += len(pair[1])
            extremes += [pair[1].min(), pair[1].max()]
            for tensor, sha256 in zip(pair, hashes, strict=True):
                sha256.update(_bytes(tensor))
            if members() > 1 and number % members() != rank():
                continue
            size += sum(t.numel() * t.element_size() for t in pair)
            if size > HELD_BYTES:
                self.held = None
            elif self.held is not None:
                self.held.append(pair)
        self.extremes = torch.stack(extremes).aminmax()
        self.sha256 = hashlib.sha256(b"".join(sha256.digest() for sha256 in hashes)).hexdigest()

    def store(self, order: Callable[[Tensor], Tensor]) -> None:
        """From now on give inputs as ``order`` returns them: the same values, another order in memory."""
        self.order = order
        if self.held is not None:
            self.held = [(order(inputs), labels) for inputs, labels in self.held]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self.held is not None:
            yield from self.held
        else:
            yield from ((self.order(x), labels) for x, labels in dealt(on_device(self.batches, self.device)))


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and values; the same on every device."""
    sha256 = hashlib.sha256()
    for name, tensor in tensors.items():
        sha256.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha256.update(_bytes(tensor))
    return sha256.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    return memoryview(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
