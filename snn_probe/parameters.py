"""The trainable parameters of a model, as a dict by name or as one flat vector of length P."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

Predicate = Callable[[str], bool]


def trainable(model: nn.Module, *, params: Predicate | None = None) -> dict[str, Tensor]:
    """Parameters with ``requires_grad``, by name, in the model's own order.

    ``params`` keeps only the names for which it is true; None keeps all. A tensor that two names share is listed once,
    under its first name. Raises ValueError if nothing is left.
    """
    if params is not None and not callable(params):
        raise ValueError(
            f"params is {params!r}; give None for all trainable parameters or a function of the parameter's name."
        )
    everything: dict[str, Tensor] = {name: p for name, p in model.named_parameters() if p.requires_grad}
    chosen = {name: p for name, p in everything.items() if params is None or params(name)}
    if not chosen:
        names = ", ".join(everything) or "none: every parameter has requires_grad=False"
        raise ValueError(f"params selects no trainable parameter of the model; it has: {names}.")
    return chosen


def flatten(tensors: Mapping[str, Tensor]) -> Tensor:
    """All tensors end to end, each row-major, as one vector (P,)."""
    return torch.cat([t.reshape(-1) for t in tensors.values()])


def unflatten(vector: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Inverse of :func:`flatten`: views into ``vector`` (P,) with the names and shapes of ``like``."""
    total = sum(t.numel() for t in like.values())
    if vector.shape != (total,):
        raise ValueError(
            f"vector has shape {tuple(vector.shape)}; these parameters need ({total},), one entry per weight."
        )
    pieces = vector.split([t.numel() for t in like.values()])
    return {name: piece.view(t.shape) for piece, (name, t) in zip(pieces, like.items(), strict=True)}
