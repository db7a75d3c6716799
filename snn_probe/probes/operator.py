"""Curvature as a linear operator: products of the Hessian or the Gauss-Newton matrix with a vector of length P.

    H = sum_b (n_b / N) d^2 L_b / dtheta^2,      G = sum_b (n_b / N) J_b^T (d^2 L_b / dz^2) J_b + d^2 R / dtheta^2,

L_b the objective on batch b of n_b examples (its mean), z its logits, J = dz/dtheta, R a penalty on weights alone.
Sums and counts are carried, so the size of the batches does not matter.

Where processes share the work, each holds the graphs of its own batches, and the products of all are added. What the
products are taken for (Lanczos, say) runs in the first process alone, so that no rounding can part the ways.

Differentiating a surrogate gradient again gives the Hessian of the network in which each spike is replaced by its
value, first and second surrogate derivative. It is symmetric, but not the curvature of the piecewise constant loss
that a landscape shows. ``forward="relaxed"`` replaces every spike by the surrogate's primitive; there the Hessian, the
finite difference of gradients and the second difference of the loss agree.
"""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar
from weakref import ReferenceType, ref

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from snn_probe.distributed import dealt, gathered, leads, members, pooled, together, told
from snn_probe.machine.free_memory import free_bytes
from snn_probe.parameters import flatten, trainable, unflatten
from snn_probe.temporal import spiking_layers

T = TypeVar("T")

OPERATORS = ("hessian", "ggn")
FORWARDS = ("spiking", "relaxed")

MEMORY_SHARE = 0.4  # of the free memory, for graphs: all of them if they are kept, else one
_FEW = 5  # examples from which the memory of a graph is measured
_SYMMETRY = 1e-3  # relative asymmetry from which a warning is given (float32 rounding stays well below)


class CurvatureOperator:
    """``operator @ v`` over fixed batches, for the parameters ``params``; inside :func:`snn_probe.temporal.probing`.

    The objective sees all trainable parameters; those not in ``params`` stop requiring gradients (until ``probing``
    ends), so that products for one layer reach down to that layer only. The graphs of the gradients are kept between
    products while they fit into a share of the free memory; else they are rebuilt at every product, in pieces of at
    most ``examples_at_once`` examples that do fit. ``products`` counts the products taken, ``kept`` says which it is,
    ``bytes_per_example`` what a graph was measured to hold. Raises ValueError for an objective that does not fit.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Sequence[tuple[Tensor, Tensor]],
        objective: Callable[..., Tensor],
        params: dict[str, Tensor],
        *,
        operator: str = "hessian",
    ):
        self.model, self.objective, self.params, self.operator = model, objective, params, operator
        self.weights = trainable(model)
        for name, parameter in self.weights.items():
            parameter.requires_grad_(name in params)
        self.count = sum(len(labels) for _, labels in batches)
        self.size = sum(p.numel() for p in params.values())
        self.products = 0
        allowed = MEMORY_SHARE * free_bytes(self.zeros().device) / _neighbours(self.zeros().device)
        self.bytes_per_example = self._measured(*batches[0])
        self.kept = self.bytes_per_example * self.count / members() < allowed
        self._check_symmetric(*(tensor[:2] for tensor in batches[0]))
        largest = max(len(labels) for _, labels in batches)
        self.examples_at_once = largest if self.kept else min(largest, max(1, int(allowed / self.bytes_per_example)))
        self.pieces = [
            piece
            for batch in dealt(batches)
            for piece in zip(*(tensor.split(self.examples_at_once) for tensor in batch), strict=True)
        ]
        self._graphs = [self._graph(*piece) for piece in self.pieces] if self.kept else None

    def __matmul__(self, vector: Tensor) -> Tensor:
        """The product with ``vector`` (P,), of its type and on its device."""
        if members() > 1:
            message = self._message()
            message[:-1], message[-1] = vector, 1.0
            told(message)
        return self._product(vector)

    def driven(self, work: Callable[[], T]) -> T:
        """What ``work``, a function that takes products, gives; it can be pickled and holds no CUDA tensor.

        Where processes share the work the first alone calls ``work``, the others add their parts of each product.
        """
        found: Any = None
        with together():
            if leads():
                try:
                    found = work()
                except Exception:
                    told(self._message())
                    raise
                told(self._message())
            else:
                self._answer()
        return gathered(found)[0]

    def _answer(self) -> None:
        """This process's part of each product that the first process asks for, until it asks for no more."""
        error: Exception | None = None
        while (message := told(self._message()))[-1]:
            try:
                self._product(message[:-1])
            except Exception as caught:  # the first process has it too, and says when it ends
                error = caught
        if error is not None:
            raise error

    def _message(self) -> Tensor:
        """Room for a vector and for a 1 if its product is wanted."""
        return self.zeros().new_zeros(self.size + 1)

    def _product(self, vector: Tensor) -> Tensor:
        self.products += 1
        total = torch.zeros_like(vector)
        with together():
            graphs = self._graphs if self._graphs is not None else (self._graph(*piece) for piece in self.pieces)
            for graph, (_, labels) in zip(graphs, self.pieces, strict=True):
                total += graph(vector) * (len(labels) / self.count)
        return pooled(total)

    def zeros(self) -> Tensor:
        """A vector (P,) of the parameters' type, on their device."""
        return torch.zeros_like(flatten({n: p.detach() for n, p in self.params.items()}))

    def _graph(self, inputs: Tensor, labels: Tensor) -> Callable[[Tensor], Tensor]:
        logits = self.model(inputs)
        if self.operator == "ggn":
            return self._gauss_newton(logits, labels)
        gradients = self._gradients(self._loss(logits, labels))
        return lambda v: self._flat(_through(gradients, self._leaves, self._shaped(v)))

    def _gauss_newton(self, logits: Tensor, labels: Tensor) -> Callable[[Tensor], Tensor]:
        """J^T (d^2 L/dz^2) J v: J v is the derivative of J^T u with respect to u, in the direction v."""
        dummy = torch.zeros_like(logits, requires_grad=True)
        pulled = self._gradients(logits, dummy)
        read = logits.detach().requires_grad_()
        loss = self._loss(read, labels)
        (slope,) = torch.autograd.grad(loss, read, create_graph=True)
        penalty = self._gradients(self._loss(logits.detach(), labels))

        def product(v: Tensor) -> Tensor:
            shaped = self._shaped(v)
            total = self._flat(_through(penalty, self._leaves, shaped))
            (pushed,) = _through(pulled, [dummy], shaped)
            (curved,) = (None,) if pushed is None else _through([slope], [read], [pushed])
            if curved is not None:
                total += self._flat(
                    torch.autograd.grad(logits, self._leaves, curved, retain_graph=True, allow_unused=True)
                )
            return total

        return product

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        try:
            loss = self.objective(logits, labels, self.weights)
        except KeyError as error:
            raise ValueError(
                f"The objective needs the parameter {error.args[0]!r}, which is no trainable parameter of the model; "
                "give an objective that fits the model."
            ) from error
        if not isinstance(loss, Tensor) or loss.ndim != 0:
            came = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(f"The objective returned {came}; give a scalar tensor, the mean over the examples.")
        if not torch.isfinite(loss):
            raise ValueError("The loss is not finite; probe a checkpoint from before training diverged.")
        return loss

    @property
    def _leaves(self) -> list[Tensor]:
        return list(self.params.values())

    def _gradients(self, of: Tensor, weights: Tensor | None = None) -> list[Tensor | None]:
        if not of.requires_grad:
            return [None] * len(self.params)
        return list(torch.autograd.grad(of, self._leaves, weights, create_graph=True, allow_unused=True))

    def _shaped(self, vector: Tensor) -> list[Tensor]:
        return list(unflatten(vector, self.params).values())

    def _flat(self, pieces: Sequence[Tensor | None]) -> Tensor:
        """Zeros where the loss does not depend on a parameter."""
        filled = [torch.zeros_like(p) if g is None else g.detach() for g, p in zip(pieces, self._leaves, strict=True)]
        return flatten(dict(zip(self.params, filled, strict=True)))

    def _check_symmetric(self, inputs: Tensor, labels: Tensor) -> None:
        """Warn if on these few examples A v . A v is not v . A (A v)."""
        graph = self._graph(inputs, labels)
        v = torch.randn(self.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(self.zeros())
        product = graph(v)
        _warn_of_asymmetry(product, v, product, graph(product))

    def _measured(self, inputs: Tensor, labels: Tensor) -> float:
        """Bytes that the graph of one more example holds, from the graphs of two and of a few."""
        two, few = (min(n, len(labels)) for n in (2, _FEW))  # one alone is laid out in memory in another way
        held = [_held_bytes(partial(self._graph, inputs[:n], labels[:n])) for n in (two, few)]
        return max(1.0, held[1] / few if two == few else (held[1] - held[0]) / (few - two))


class _Held:
    """A tensor that a graph has saved; to be taken away, since with what saved it it may form a circle for ever."""

    def __init__(self, tensor: Tensor):
        self.tensor: Any = tensor


def _held_bytes(build: Callable[[], object]) -> int:
    """Memory of the tensors that the graph made by ``build`` keeps, each storage counted once."""
    saved: dict[int, tuple[StorageWeakRef, int]] = {}
    holders: list[ReferenceType[_Held]] = []

    def pack(tensor: Tensor) -> _Held:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = StorageWeakRef(storage), storage.nbytes()
        held = _Held(tensor)
        holders.append(ref(held))
        return held

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda held: held.tensor):
        graph = build()
    total = sum(size for storage, size in saved.values() if not storage.expired())
    del graph  # until here: what only passed through has expired, what the graph holds has not
    for held in filter(None, (found() for found in holders)):
        held.tensor = None
    return total


def _through(values: Sequence[Tensor | None], inputs: list[Tensor], vector: list[Tensor]) -> Sequence[Tensor | None]:
    """The derivative of ``values`` . ``vector`` with respect to ``inputs``, keeping the graph."""
    live = [(g, v) for g, v in zip(values, vector, strict=True) if g is not None and g.requires_grad]
    if not live:
        return [None] * len(inputs)
    found, weights = zip(*live, strict=True)
    return torch.autograd.grad(found, inputs, weights, retain_graph=True, allow_unused=True)


def _neighbours(device: torch.device) -> int:
    """How many of the processes that share the work share the device's memory too: on the CPU those of this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", members())) if device.type == "cpu" and members() > 1 else 1


@contextmanager
def spikes_as(model: nn.Module, forward: str) -> Iterator[None]:
    """ "spiking" leaves the model as it is; "relaxed" lets its surrogates return their primitive instead of spikes."""
    surrogates: list[Any] = [
        layer.surrogate_function for layer in spiking_layers(model).values() if hasattr(layer, "surrogate_function")
    ]
    if forward == "relaxed":
        unable = [type(s).__name__ for s in surrogates if not hasattr(s, "set_spiking_mode")]
        if unable or not surrogates:
            named = ", ".join(unable) or "no SpikingJelly spiking layer"
            raise ValueError(f"forward='relaxed' needs surrogates with a primitive function; the model has {named}.")
    before = [getattr(s, "spiking", None) for s in surrogates]
    try:
        if forward == "relaxed":
            for surrogate in surrogates:
                surrogate.set_spiking_mode(False)
        yield
    finally:
        for surrogate, spiking in zip(surrogates, before, strict=True):
            if spiking is not None:
                surrogate.spiking = spiking


def asymmetry(operator: CurvatureOperator, u: Tensor, v: Tensor, product: Tensor) -> float:
    """|u.(Av) - v.(Au)| over the larger of |Au||v| and |Av||u|; ``product`` is Av. Warns when it is not small."""
    return _warn_of_asymmetry(u, v, product, operator @ u)


def _warn_of_asymmetry(u: Tensor, v: Tensor, product: Tensor, other: Tensor) -> float:
    """``product`` is Av, ``other`` Au."""
    scale = max(float(other.norm() * v.norm()), float(product.norm() * u.norm()), torch.finfo(v.dtype).tiny)
    found = abs(float(u @ product) - float(v @ other)) / scale
    if found > _SYMMETRY:
        warnings.warn(
            f"The curvature operator is not symmetric (relative asymmetry {found:.1e}): a surrogate's second "
            "derivative is wrong or missing (once_differentiable) or the model is not deterministic, so its eigenvalues, "
            "trace and density mean nothing.",
            stacklevel=4,
        )
    return found
