"""The temporal contract: ``model(inputs) -> logits`` with logits (T, N, C), starting from rest at every call.

T timesteps (counted from 1 in tables), N examples, C classes. Every probe takes any ``nn.Module`` that keeps it.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from snn_probe import sharing
from snn_probe.neurons import first_order

Batches = Iterable[tuple[Tensor, Tensor]]
"""Inputs (N, ...) and labels (N,) int64; re-iterable, the same order every time, no augmentation."""


class SpikingJellyModel(nn.Module):
    """A SpikingJelly network as a temporal model; made by :func:`from_spikingjelly`."""

    def __init__(self, net: nn.Module, num_steps: int | None):
        super().__init__()
        self.net = net
        self.num_steps = num_steps

    def forward(self, inputs: Tensor) -> Tensor:
        with _at_rest(self.net):
            if self.num_steps is None:
                return self.net(_time_first(inputs))
            shared, rest = sharing.split(self.net)
            x = sharing.once(shared, inputs.unsqueeze(0), self.num_steps)
            x = x.expand(self.num_steps, *x.shape[1:])
            for layer in rest:
                x = layer(x)
            return x

    def unrolled(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """The same logits as T tensors (N, C), computed in single-step mode.

        The graph of the t-th reaches timesteps 1..t only, so a loss of the first t logits costs t steps of backward,
        not T. First derivatives only (see :mod:`snn_probe.neurons`). Raises ValueError if a layer has no single step.
        """
        with _at_rest(self.net), _single_step(self.net), first_order(self.net):
            if self.num_steps is None:
                return tuple(self.net(x) for x in _time_first(inputs))
            shared, rest = sharing.split(self.net)
            x = sharing.once(shared, inputs, self.num_steps)
            logits = []
            for _ in range(self.num_steps):
                y = x
                for layer in rest:
                    y = layer(y)
                logits.append(y)
            return tuple(logits)


def from_spikingjelly(net: nn.Module, num_steps: int | None = None) -> nn.Module:
    """Wrap a SpikingJelly network so that ``model(inputs)`` gives logits (T, N, C) from rest.

    ``num_steps=T``: inputs are static images (N, C, H, W), shown T times (direct encoding); in an ``nn.Sequential`` the
    layers before the first spiking one are computed once, not T times, in training too. ``num_steps=None``: inputs are
    streams (N, T, ...), whose time axis is moved first. The network is put in multi-step mode here and reset before and
    after each forward. Raises ValueError for T < 1 and for a network with a layer that has no multi-step mode.
    """
    from spikingjelly.activation_based import base, functional

    if not isinstance(net, nn.Module):
        raise ValueError(f"net is {type(net).__name__}; give a torch.nn.Module made of SpikingJelly layers.")
    if num_steps is not None and (isinstance(num_steps, bool) or not isinstance(num_steps, int) or num_steps < 1):
        raise ValueError(
            f"num_steps is {num_steps!r}; give a whole number of at least 1 for static images, or None for streams."
        )
    for name, module in net.named_modules():
        if isinstance(module, base.StepModule) and "m" not in module.supported_step_mode():
            raise ValueError(
                f"Layer {name!r} ({type(module).__name__}) has no multi-step mode; use one that has, "
                "or wrap it in spikingjelly's MultiStepContainer."
            )
    functional.set_step_mode(net, "m")
    return SpikingJellyModel(net, num_steps)


def unrolled(model: nn.Module, inputs: Tensor) -> tuple[Tensor, ...] | None:
    """``model.unrolled(inputs)`` if the model has it and its layers allow it, else None."""
    method = getattr(model, "unrolled", None)
    if method is None:
        return None
    try:
        return method(inputs)
    except (ValueError, RuntimeError, TypeError, IndexError):
        return None


def spiking_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Modules that emit spikes through a surrogate gradient, by name, in the model's order."""
    return {
        name: module
        for name, module in model.named_modules()
        if hasattr(module, "surrogate_function") or hasattr(module, "spike_grad")
    }


@contextmanager
def probing(model: nn.Module) -> Iterator[nn.Module]:
    """The context in which every probe runs.

    Inside, batch norm and dropout are in eval mode, spiking layers stay live (training flag on, unless they keep
    running statistics of their own) and gradients can be taken. Afterwards, also after an exception, training flags,
    buffers, ``requires_grad``, ``.grad``, membrane states and the random state are what they were.
    """
    modules = list(model.modules())
    flags = [m.training for m in modules]
    memories = [(m, dict(m._memories)) for m in modules if isinstance(getattr(m, "_memories", None), dict)]
    buffers = [(b, b.detach().clone()) for b in model.buffers()]
    parameters = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    devices = sorted({p.device.index for p, _, _ in parameters if p.device.type == "cuda"})
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=devices))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        try:
            model.eval()
            for layer in spiking_layers(model).values():
                if not any("running" in name for name, _ in layer.named_buffers()):
                    layer.train()
            yield model
        finally:
            for module, flag in zip(modules, flags, strict=True):
                module.training = flag
            for module, memory in memories:
                module._memories.clear()
                module._memories.update(memory)
            for buffer, before in buffers:
                if not torch.equal(buffer, before):
                    with torch.no_grad():
                        buffer.copy_(before)
            for parameter, requires_grad, grad in parameters:
                parameter.requires_grad_(requires_grad)
                parameter.grad = grad


def check_temporal(
    model: nn.Module, inputs: Tensor, *, num_steps: int | None = None, num_classes: int | None = None
) -> int:
    """T, after running ``model`` on ``inputs`` (N, ...) and on part of them and comparing.

    Raises ValueError saying which promise broke and the fix: logits not (T, N, C), T or C other than ``num_steps`` or
    ``num_classes`` (where None, T is taken from the model's own ``num_steps`` if it has one), state carried over
    between calls, randomness, examples that influence each other's shape, logits without a gradient path.
    Runs under :func:`probing`, so it leaves no trace.
    """
    if num_steps is None:
        num_steps = getattr(model, "num_steps", None)
    with probing(model):
        logits = _seeded(model, inputs, 0)
        _check_shape(model, logits, inputs, num_steps, num_classes)
        again, other = _seeded(model, inputs, 0), _seeded(model, inputs, 1)
        if not (_same(logits, again) and _same(logits, other)):
            noisy = _same(logits, again) and _same(other, _seeded(model, inputs, 1))
            if noisy and _same(logits, _seeded(model, inputs, 0)):
                raise ValueError(
                    "The model's logits depend on the random state even in eval mode; "
                    "remove the noise, or draw it from a generator that forward seeds itself."
                )
            raise ValueError(
                "The model gives other logits when called again on the same inputs, so state is carried over between "
                "calls; reset it at the start of forward, or wrap the network with from_spikingjelly."
            )
        _check_gradient_path(model, logits)
    return logits.shape[0]


def _seeded(model: nn.Module, inputs: Tensor, seed: int) -> Tensor:
    torch.manual_seed(seed)
    return model(inputs)


def _check_shape(
    model: nn.Module, logits: Tensor, inputs: Tensor, num_steps: int | None, num_classes: int | None
) -> None:
    if not isinstance(logits, Tensor) or logits.ndim != 3:
        came = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"The model returned {came}; a temporal model returns logits (T, N, C): one row of C logits for each "
            "timestep and example, before any mean over time."
        )
    n = len(inputs)
    fewer = model(inputs[: n - 1]) if n > 1 else None
    batch_axis = logits.shape[1] == n and (fewer is None or fewer.shape == (logits.shape[0], n - 1, logits.shape[2]))
    if not batch_axis:
        swapped = logits.shape[0] == n and (fewer is None or fewer.shape[0] == n - 1)
        hint = "time and batch are swapped: return logits.transpose(0, 1)" if swapped else "the second axis must be N"
        raise ValueError(f"The model returned logits {tuple(logits.shape)} for {n} examples, not (T, {n}, C); {hint}.")
    if num_steps is not None and logits.shape[0] != num_steps:
        raise ValueError(
            f"The model returned {logits.shape[0]} timesteps where T is {num_steps}; "
            "return the logits of every timestep, time first."
        )
    if logits.shape[2] < 2 or (num_classes is not None and logits.shape[2] != num_classes):
        allowed = "at least 2" if num_classes is None else num_classes
        raise ValueError(
            f"The model returned {logits.shape[2]} logits per example where {allowed} classes are expected; "
            "give the last linear layer one output per class."
        )


def _check_gradient_path(model: nn.Module, logits: Tensor) -> None:
    chosen = [p for p in model.parameters() if p.requires_grad]
    if logits.requires_grad and chosen:
        gradients = torch.autograd.grad(logits.sum(), chosen, allow_unused=True)
        if any(g is not None for g in gradients):
            return
    raise ValueError(
        "No gradient reaches any trainable parameter from the logits; give spiking layers a surrogate gradient, "
        "and remove .detach(), torch.no_grad() and requires_grad=False from the path."
    )


def _same(a: Tensor, b: Tensor) -> bool:
    """Equal up to the rounding of a different order of summation."""
    if a.shape != b.shape:
        return False
    scale = a.detach().abs().max().clamp_min(torch.finfo(a.dtype).tiny)
    return bool(((a - b).detach().abs().max() <= 1e-4 * scale) | (a.isnan().any() & b.isnan().any()))


def _time_first(streams: Tensor) -> Tensor:
    if streams.ndim < 3:
        raise ValueError(
            f"inputs have shape {tuple(streams.shape)}; streams are (N, T, ...): for static images give num_steps."
        )
    return streams.transpose(0, 1)


@contextmanager
def _at_rest(net: nn.Module) -> Iterator[None]:
    """Reset before, so that nothing is carried over, and after, so that no graph is kept alive by a state."""
    from spikingjelly.activation_based import base

    stateful = [m for m in net.modules() if isinstance(m, base.MemoryModule)]
    for module in stateful:
        module.reset()
    try:
        yield
    finally:
        for module in stateful:
            module.reset()


@contextmanager
def _single_step(net: nn.Module) -> Iterator[None]:
    from spikingjelly.activation_based import base, functional

    for name, module in net.named_modules():
        if isinstance(module, base.StepModule) and "s" not in module.supported_step_mode():
            raise ValueError(f"Layer {name!r} ({type(module).__name__}) has no single-step mode.")
    modes = [(m, m.step_mode) for m in net.modules() if isinstance(m, base.StepModule)]
    try:
        functional.set_step_mode(net, "s")
        yield
    finally:
        for module, mode in modes:
            module.step_mode = mode
