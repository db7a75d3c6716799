"""TRT's penalty on the weights, in closed form."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

import torch
from torch import Tensor

Params = Mapping[str, Tensor]
PENALIZE = ("non_bias", "hidden_weights")


def penalized(params: Params | Iterable[tuple[str, Tensor]], penalize: str) -> dict[str, Tensor]:
    """The parameters that TRT's penalty sums over, by name.

    "non_bias", as in the authors' code: every parameter whose name lacks "bias", that is convolutions, linear layers
    including the classifier, and batch-norm scales. "hidden_weights", a reading of the paper's sum over layers 1..L-1:
    kernels and matrices (two or more axes) without the last one, the classifier.
    """
    check_penalize(penalize)
    named = {name: p for name, p in dict(params).items() if "bias" not in name}
    if penalize == "non_bias":
        return named
    weights = [name for name, p in named.items() if p.ndim >= 2]
    return {name: named[name] for name in weights[:-1]}


def trt_penalty(
    params: Params, num_steps: int, *, strength: float, decay: float, epsilon: float, penalize: str = "non_bias"
) -> Tensor:
    """R = (1/T) sum_{t=0}^{T-1} sum_w lambda w^2 / (1 + (e^{delta t} - 1)(|w| + eps)), a scalar.

    lambda ``strength``, delta ``decay``, eps ``epsilon``, w over :func:`penalized`. It depends on the weights alone, so
    value and gradient come from one blocked sweep, without a T-fold graph; with a_t = e^{delta t} - 1,

        dR/dw = (lambda/T) w sum_t (2 + 2 a_t eps + a_t |w|) / (1 + a_t (|w| + eps))^2.

    The gradient may be differentiated again (the Hessian is diagonal).
    """
    if isinstance(num_steps, bool) or not isinstance(num_steps, int) or num_steps < 1:
        raise ValueError(f"num_steps is {num_steps!r}; give T, a whole number of at least 1.")
    weights = list(penalized(params, penalize).values())
    if not weights:
        raise ValueError(
            f"penalize={penalize!r} selects none of the parameters {', '.join(dict(params)) or '(none given)'}; "
            "give the model's weights by name."
        )
    rates = tuple(_rate(decay * t) for t in range(num_steps))
    return _Penalty.apply(strength / num_steps, rates, epsilon, *weights)


def _rate(exponent: float) -> float:
    """e^x - 1, at most 1e30: there 1/(1 + a |w|) is zero beside the term of t = 0 for any weight that matters."""
    return min(math.expm1(min(exponent, 100.0)), 1e30)


class _Penalty(torch.autograd.Function):
    @staticmethod
    def forward(ctx, scale, rates, epsilon, *weights):
        sweep = _sweep.get(_blocked_sweep)
        gradients = [torch.empty_like(w) if w.requires_grad else None for w in weights]
        total = torch.zeros((), dtype=torch.float64, device=weights[0].device)
        for weight, gradient in zip(weights, gradients, strict=True):
            total += sweep(weight, gradient, scale, rates, epsilon)
        ctx.scale, ctx.rates, ctx.epsilon = scale, rates, epsilon
        ctx.gradients = gradients
        ctx.save_for_backward(*weights)
        return total.to(weights[0].dtype)

    @staticmethod
    def backward(ctx, upstream):
        found, ctx.gradients = ctx.gradients, None  # given away once: the receiver may change them in place
        if torch.is_grad_enabled() or found is None:  # to be differentiated again, or a second backward
            found = [_gradient(w, ctx.scale, ctx.rates, ctx.epsilon) for w in ctx.saved_tensors]
        else:
            if upstream.device.type == "cpu" and upstream.item() == 1.0:  # as in loss + penalty: spare a pass
                return None, None, None, *found
        return None, None, None, *(None if g is None else g * upstream for g in found)


_COMPILED = 1 << 12  # elements below which a kernel's call costs more than it saves
_BLOCK = 1 << 17  # elements per block on the CPU: the few arrays in use then stay in the caches of two cores


def _blocked_sweep(weight: Tensor, gradient: Tensor | None, scale: float, rates, epsilon: float) -> Tensor:
    """``scale`` times the sum of the penalty over ``weight``, in float64; its gradient goes into ``gradient`` if given.

    With u = |w| and d_t = 1 + a_t (u + eps), and because (2 + 2 a_t eps + a_t u) / d_t^2 = (1 + a_t eps) / d_t^2 + 1 / d_t,
    value and gradient follow from sum_t 1/d_t and sum_t (1 + a_t eps) / d_t^2. Terms with a_t = 0 (t = 0, and every t
    where decay is 0) are plain L2.
    """
    flat = weight.detach().reshape(-1)
    dense = gradient is not None and gradient.is_contiguous()
    out = None if gradient is None else gradient.view(-1) if dense else torch.empty_like(flat)
    size = max(1, flat.numel() if flat.is_cuda else min(_BLOCK, flat.numel()))
    work = [torch.empty(size, dtype=flat.dtype, device=flat.device) for _ in range(4)]
    curved = [(a, torch.tensor(1.0 + a * epsilon, dtype=flat.dtype, device=flat.device)) for a in rates if a != 0.0]
    plain = len(rates) - len(curved)
    total = torch.zeros((), dtype=torch.float64, device=flat.device)
    for start in range(0, flat.numel(), size):
        w = flat[start : start + size]
        u, d, first, second = (array[: w.numel()] for array in work)
        torch.abs(w, out=u)
        for i, (a, base) in enumerate(curved):
            torch.add(base, u, alpha=a, out=d)
            if i == 0:
                torch.reciprocal(d, out=first)
                torch.mul(first, first, out=second).mul_(base)
                continue
            first.add_(d.reciprocal_())
            second.addcmul_(d, d, value=1.0 + a * epsilon)
        if out is not None:
            slope = torch.mul(w, 2.0 * plain * scale, out=out[start : start + size])
            if curved:
                slope.addcmul_(torch.add(first, second, out=d), w, value=scale)
        squares = torch.mul(w, w, out=u)
        total += plain * squares.sum(dtype=torch.float64)
        if curved:
            total += torch.dot(squares, first)
    if gradient is not None and out is not None and not dense:
        gradient.copy_(out.view(weight.shape))
    return total * scale


_sweep: ContextVar[Callable[..., Tensor]] = ContextVar("_sweep")


@contextmanager
def compiled_penalty() -> Iterator[None]:
    """Within this context the penalty of contiguous weights is one kernel made by torch.compile."""
    token = _sweep.set(_compiled_sweep)
    try:
        yield
    finally:
        _sweep.reset(token)


def _compiled_sweep(weight: Tensor, gradient: Tensor | None, scale: float, rates, epsilon: float) -> Tensor:
    if gradient is None or not (weight.is_contiguous() and gradient.is_contiguous()) or weight.numel() < _COMPILED:
        return _blocked_sweep(weight, gradient, scale, rates, epsilon)
    flat, out = weight.detach().view(-1), gradient.view(-1)
    for tensor in (flat, out):
        torch._dynamo.mark_dynamic(tensor, 0)  # one kernel for every size
    return _kernel(scale, rates, epsilon)(flat, out)


@cache
def _kernel(scale: float, rates: tuple[float, ...], epsilon: float) -> Callable[[Tensor, Tensor], Tensor]:
    def whole(w: Tensor, gradient: Tensor) -> Tensor:
        """The formulas of :func:`_blocked_sweep` without its blocks."""
        u, first, second = w.abs(), torch.zeros_like(w), torch.zeros_like(w)
        for a in rates:
            inverse = 1.0 / (a * u + (1.0 + a * epsilon))
            first = first + inverse
            second = second + (1.0 + a * epsilon) * inverse * inverse
        gradient.copy_(scale * w * (first + second))
        return scale * (w * w * first).sum(dtype=torch.float64)

    return torch.compile(whole)


def _gradient(weight: Tensor, scale: float, rates, epsilon: float) -> Tensor:
    u = weight.abs()
    total = torch.zeros_like(weight)
    for a in rates:
        total = total + (2.0 + 2.0 * a * epsilon + a * u) / (1.0 + a * (u + epsilon)).square()
    return scale * weight * total


def check_penalize(penalize: str) -> None:
    """Raises ValueError unless ``penalize`` is one of ``PENALIZE``."""
    if penalize not in PENALIZE:
        raise ValueError(f"penalize is {penalize!r}; give one of {', '.join(map(repr, PENALIZE))}.")
