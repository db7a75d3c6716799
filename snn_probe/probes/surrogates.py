"""What curvature asks of surrogate gradients: that they can be differentiated again, and that something is left."""

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from snn_probe.probes.batching import device_of
from snn_probe.temporal import spiking_layers


def warn_of_flat_surrogates(model: nn.Module) -> list[str]:
    """Names of spiking layers whose surrogate has no second derivative; warns if there are any."""
    flat = []
    for name, layer in spiking_layers(model).items():
        x, g = torch.linspace(-2.03, 1.97, 401, requires_grad=True, **_like(model)), torch.ones(401, **_like(model))
        slope = _slope(layer, x, g)
        if slope is None:
            continue
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


def check_twice_differentiable(model: nn.Module) -> None:
    """ValueError if a surrogate's backward pass is no part of the graph, as under torch's ``once_differentiable``.

    Then automatic differentiation takes it for a constant, in the Hessian and in the Gauss-Newton matrix, and says
    nothing.
    """
    for name, layer in spiking_layers(model).items():
        x, g = (torch.linspace(-0.5, 0.5, 11, requires_grad=True, **_like(model)) for _ in range(2))
        slope = _slope(layer, x, g)
        if slope is not None and not _depends(slope, g):
            raise ValueError(
                f"The surrogate gradient of layer {name!r} cannot be differentiated again, which hessian_eigenvalues, "
                "hessian_trace and hessian_density need; write its backward with torch operations on saved tensors, "
                "without once_differentiable."
            )


def _slope(layer: nn.Module, x: Tensor, g: Tensor) -> Tensor | None:
    """The surrogate's slope at ``x`` times ``g``, with its graph; None where it takes more than a tensor."""
    surrogate: Any = getattr(layer, "surrogate_function", None) or getattr(layer, "spike_grad", None)
    try:
        return torch.autograd.grad(surrogate(x), x, g, create_graph=True)[0]
    except (RuntimeError, ValueError, TypeError):
        return None


def _depends(slope: Tensor, g: Tensor) -> bool:
    """Whether the graph of ``slope`` reaches ``g``, as it must, since the slope is proportional to it."""
    try:
        return slope.requires_grad and torch.autograd.grad(slope.sum(), g, allow_unused=True)[0] is not None
    except RuntimeError:
        return False


def _like(model: nn.Module) -> dict[str, Any]:
    return {"dtype": torch.float64, "device": device_of(model)}
