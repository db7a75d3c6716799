"""Whether a gradient reaches the parameters of a model from its logits, and what to say if not."""

import warnings
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn


def check_gradient_path(model: nn.Module, logits: Tensor, inputs: Tensor) -> None:
    """ValueError where no parameter is reached, or some in training mode alone; a warning of the others."""
    chosen = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not chosen and any(True for _ in model.parameters()):
        raise ValueError(
            "Every parameter of the model is frozen (requires_grad=False), so there is nothing to take gradients for; "
            "call model.requires_grad_(True), or unfreeze the layers to look at."
        )
    reached = _reached(logits, chosen)
    missed = {name: p for name, p in chosen.items() if name not in reached}
    revived = _reached_in_training(model, inputs, missed)
    if revived:
        raise ValueError(
            f"No gradient reaches {_some(revived)} in eval mode, but it does in training mode, so a spiking layer "
            "loses its surrogate gradient in eval mode; call its surrogate surrogate_function or spike_grad, so that "
            "probes keep the layer in training mode, or let its forward not depend on self.training."
        )
    if not reached:
        raise ValueError(
            "No gradient reaches any trainable parameter from the logits; give spiking layers a surrogate gradient, "
            "and remove .detach(), torch.no_grad() and requires_grad=False from the path."
        )
    if missed:
        warnings.warn(
            f"No gradient reaches {_some(missed)} from the logits, because the forward does not use them or cuts the "
            "graph, as a threshold without a surrogate gradient does, so they count as zero; give the threshold one, or "
            "remove, freeze or leave out with params what is not used.",
            stacklevel=4,
        )


def _reached(logits: Tensor, parameters: Mapping[str, Tensor]) -> set[str]:
    """Names of the parameters that the logits have a graph to."""
    if not (logits.requires_grad and parameters):
        return set()
    gradients = torch.autograd.grad(logits.sum(), list(parameters.values()), allow_unused=True)
    return {name for name, gradient in zip(parameters, gradients, strict=True) if gradient is not None}


def _reached_in_training(model: nn.Module, inputs: Tensor, missed: Mapping[str, Tensor]) -> list[str]:
    """Those of ``missed`` that a gradient reaches when the whole model is in training mode, if it runs in it."""
    if not missed:
        return []
    model.train()
    try:
        logits = model(torch.cat([inputs, inputs]))  # a batch norm refuses to train on one example
        reached = _reached(logits, missed) if isinstance(logits, Tensor) else set()
    except (RuntimeError, ValueError, TypeError, IndexError):
        return []
    return [name for name in missed if name in reached]


def _some(parameters: Iterable[str]) -> str:
    """The first names, and how many there are in all."""
    names = list(parameters)
    shown = ", ".join(names[:3]) + ", ..." * (len(names) > 3)
    return f"parameter {shown}" if len(names) == 1 else f"{len(names)} parameters ({shown})"
