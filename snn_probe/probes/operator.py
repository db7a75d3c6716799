"""Curvature as a linear operator: products of the Hessian or the Gauss-Newton matrix with a vector of length P.

    H = sum_b (n_b / N) d^2 L_b / dtheta^2,      G = sum_b (n_b / N) J_b^T (d^2 L_b / dz^2) J_b + d^2 R / dtheta^2,

L_b the objective on batch b of n_b examples (its mean), z its logits, J = dz/dtheta, R a penalty on weights alone.
Sums and counts are carried, so the size of the batches does not matter.

Differentiating a surrogate gradient again gives the Hessian of the network in which each spike is replaced by its
value, first and second surrogate derivative. It is symmetric, but not the curvature of the piecewise constant loss
that a landscape shows. ``forward="relaxed"`` replaces every spike by the surrogate's primitive; there the Hessian, the
finite difference of gradients and the second difference of the loss agree.
"""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from snn_probe.parameters import flatten, unflatten
from snn_probe.temporal import spiking_layers

OPERATORS = ("hessian", "ggn")
FORWARDS = ("spiking", "relaxed")

_MEMORY_SHARE = 0.4  # of the free memory, for graphs kept between products
_SYMMETRY = 1e-3  # relative asymmetry from which a warning is given (float32 rounding stays well below)


class CurvatureOperator:
    """``operator @ v`` over fixed batches. Use inside :func:`snn_probe.temporal.probing`.

    The graphs of the gradients are kept between products while they fit into memory, else rebuilt batch by batch.
    ``products`` counts the products taken, ``kept`` says whether graphs are kept.
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
        self.model, self.objective, self.params = model, objective, params
        self.batches, self.operator = list(batches), operator
        self.count = sum(len(labels) for _, labels in self.batches)
        self.size = sum(p.numel() for p in params.values())
        self.products = 0
        self._graphs: list[Callable[[Tensor], Tensor]] | None = None
        self.kept = self._fits()
        if self.kept:
            self._graphs = [self._graph(*batch) for batch in self.batches]

    def __matmul__(self, vector: Tensor) -> Tensor:
        """The product with ``vector`` (P,), of its type and on its device."""
        self.products += 1
        total = torch.zeros_like(vector)
        graphs = self._graphs if self._graphs is not None else (self._graph(*batch) for batch in self.batches)
        for graph, (_, labels) in zip(graphs, self.batches, strict=True):
            total += graph(vector) * (len(labels) / self.count)
        return total

    def zeros(self) -> Tensor:
        """A vector (P,) of the parameters' type, on their device."""
        return torch.zeros_like(flatten({n: p.detach() for n, p in self.params.items()}))

    def _graph(self, inputs: Tensor, labels: Tensor) -> Callable[[Tensor], Tensor]:
        leaves = list(self.params.values())
        logits = self.model(inputs)
        loss = self.objective(logits, labels, self.params)
        if not torch.isfinite(loss):
            raise ValueError("The loss is not finite; probe a checkpoint from before training diverged.")
        if self.operator == "hessian":
            gradients = _present(torch.autograd.grad(loss, leaves, create_graph=True, allow_unused=True), leaves)
            return lambda v: self._flat(_through(gradients, leaves, self._pieces(v)))
        outer = self.objective(logits.detach().requires_grad_(), labels, self.params)
        return self._gauss_newton(logits, labels, outer, leaves)

    def _gauss_newton(self, logits: Tensor, labels: Tensor, outer: Tensor, leaves: list[Tensor]):
        """J^T (d^2 L/dz^2) J v: J v is the derivative of J^T u with respect to u, in the direction v."""
        dummy = torch.zeros_like(logits, requires_grad=True)
        pulled = _present(torch.autograd.grad(logits, leaves, dummy, create_graph=True, allow_unused=True), leaves)
        read = logits.detach().requires_grad_()
        (slope,) = torch.autograd.grad(self.objective(read, labels, self.params), read, create_graph=True)
        penalty = torch.autograd.grad(outer, leaves, create_graph=True, allow_unused=True)

        def product(v: Tensor) -> Tensor:
            pieces = self._pieces(v)
            (pushed,) = torch.autograd.grad(pulled, dummy, pieces, retain_graph=True)
            (curved,) = torch.autograd.grad(slope, read, pushed, retain_graph=True)
            back = torch.autograd.grad(logits, leaves, curved, retain_graph=True, allow_unused=True)
            total = self._flat(back)
            if any(g is not None for g in penalty):
                total = total + self._flat(_through(_present(penalty, leaves), leaves, pieces))
            return total

        return product

    def _pieces(self, vector: Tensor) -> list[Tensor]:
        return list(unflatten(vector, self.params).values())

    def _flat(self, pieces: Sequence[Tensor | None]) -> Tensor:
        filled = _present([None if g is None else g.detach() for g in pieces], list(self.params.values()))
        return flatten(dict(zip(self.params, filled, strict=True)))

    def _fits(self) -> bool:
        """Whether the graphs of all batches together stay below the share of free memory; measured on the first."""
        held = 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal held
            held += tensor.numel() * tensor.element_size()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            self._graph(*self.batches[0])
        return held / len(self.batches[0][1]) * self.count < _MEMORY_SHARE * _free_bytes(self.zeros().device)


def _present(gradients: Sequence[Tensor | None], leaves: list[Tensor]) -> list[Tensor]:
    """Zeros where the loss does not depend on a parameter."""
    return [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, leaves, strict=True)]


def _through(gradients: list[Tensor], leaves: list[Tensor], vector: list[Tensor]) -> Sequence[Tensor | None]:
    live = [(g, v) for g, v in zip(gradients, vector, strict=True) if g.requires_grad]
    if not live:
        return [None] * len(leaves)
    outputs, weights = zip(*live, strict=True)
    return torch.autograd.grad(outputs, leaves, weights, retain_graph=True, allow_unused=True)


def _free_bytes(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 4e9


@contextmanager
def spikes_as(model: nn.Module, forward: str) -> Iterator[None]:
    """ "spiking" leaves the model as it is; "relaxed" lets its surrogates return their primitive instead of spikes."""
    surrogates = [
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


def warn_of_flat_surrogates(model: nn.Module) -> list[str]:
    """Names of spiking layers whose surrogate has no second derivative; warns if there are any."""
    flat = []
    for name, layer in spiking_layers(model).items():
        surrogate = getattr(layer, "surrogate_function", None)
        if surrogate is None:
            continue
        x = torch.linspace(-2.03, 1.97, 401, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(surrogate(x).sum(), x, create_graph=True)
        bend = torch.autograd.grad(slope.sum(), x)[0] if slope.requires_grad else torch.zeros(1)
        if not bend.any():
            flat.append(name)
    if flat:
        warnings.warn(
            f"The surrogate gradient of {', '.join(flat)} has no second derivative, so the Hessian has degenerated to "
            "a Gauss-Newton-like term there; use ATan, Sigmoid or PiecewiseQuadratic, or read it as such.",
            stacklevel=3,
        )
    return flat


def asymmetry(operator: CurvatureOperator, u: Tensor, v: Tensor, product: Tensor) -> float:
    """|u.(Av) - v.(Au)| relative to the larger of |Au||v| and |Av||u|; ``product`` is Av. Warns when it is not small."""
    other = operator @ u
    scale = max(float(other.norm() * v.norm()), float(product.norm() * u.norm()), torch.finfo(v.dtype).tiny)
    found = abs(float(u @ product) - float(v @ other)) / scale
    if found > _SYMMETRY:
        warnings.warn(
            f"The curvature operator is not symmetric (relative asymmetry {found:.1e}): a surrogate's second derivative "
            "is wrong or the model is not deterministic, so eigenvalues mean nothing.",
            stacklevel=3,
        )
    return found
