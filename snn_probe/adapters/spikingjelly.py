"""A SpikingJelly network as a temporal model: reset at every call, in the step mode that its forward is written for."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from snn_probe.adapters.feeding import at_once, check_arguments, timesteps
from snn_probe.neurons import sharing
from snn_probe.neurons.pooling import fast_pools
from snn_probe.neurons.single_step import first_order, running
from snn_probe.neurons.values_only import in_turn


class SpikingJellyModel(nn.Module):
    """A SpikingJelly network as a temporal model; made by :func:`from_spikingjelly`."""

    def __init__(self, net: nn.Module, num_steps: int | None, takes: str):
        super().__init__()
        self.net = net
        self.num_steps = num_steps
        self.takes = takes

    def forward(self, inputs: Tensor) -> Tensor:
        with at_rest(self.net):
            return self.from_rest(inputs)

    def from_rest(self, inputs: Tensor) -> Tensor:
        """The forward without the resets, which torch.compile cannot trace."""
        if self.takes == "timestep":
            return torch.stack([self.net(x) for x in timesteps(inputs, self.num_steps)])
        if self.num_steps is None or self.takes != "time first":
            return self.net(at_once(inputs, self.num_steps, self.takes))
        shared, rest = sharing.split(self.net)
        x = sharing.once(shared, inputs.unsqueeze(0), self.num_steps)
        return in_turn(rest, x.expand(self.num_steps, *x.shape[1:]))

    def unrolled(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """The same logits as T tensors (N, C), computed in single-step mode.

        The graph of the t-th reaches timesteps 1..t only, so a loss of the first t logits costs t steps of backward,
        not T. First derivatives only (see :mod:`snn_probe.neurons.single_step`). Raises ValueError if a layer has no single step,
        or the network's forward is written for another order than time first.
        """
        if self.takes not in ("timestep", "time first"):
            raise ValueError(f"The network takes {self.takes}, so it cannot be run one timestep at a time.")
        with at_rest(self.net), single_step(self.net), first_order(self.net), running(fast_pools(self.net)):
            if self.num_steps is None or self.takes == "timestep":
                return tuple(self.net(x) for x in timesteps(inputs, self.num_steps))
            shared, rest = sharing.split(self.net)
            x = sharing.once(shared, inputs, self.num_steps)
            logits = []
            for _ in range(self.num_steps):
                y = x
                for layer in rest:
                    y = layer(y)
                logits.append(y)
            return tuple(logits)


def from_spikingjelly(net: nn.Module, num_steps: int | None = None, *, takes: str = "time first") -> nn.Module:
    """Wrap a SpikingJelly network so that ``model(inputs)`` gives logits (T, N, C) from rest.

    ``num_steps=T``: inputs are static images (N, C, H, W), shown T times (direct encoding); in an ``nn.Sequential`` the
    layers before the first spiking one are computed once, not T times, in training too. ``num_steps=None``: inputs are
    streams (N, T, ...). ``takes`` is what the network's own forward takes: "time first" (T, N, ...), as SpikingJelly's
    multi-step networks and its model zoo do; "examples first" (N, T, ...); "timestep", one (N, ...) at a time; "image",
    a static (N, ...) that it shows T times itself. It returns (T, N, C), or (N, C) for one timestep.

    The network is put in multi-step mode here ("timestep": single-step mode) and reset before and after each forward.
    Raises ValueError for T < 1, an unknown ``takes`` and a network with a layer that does not have the step mode.
    """
    from spikingjelly.activation_based import base, functional

    check_arguments(net, num_steps, takes, "SpikingJelly layers")
    mode, fix = ("s", "") if takes == "timestep" else ("m", ", wrap it in spikingjelly's MultiStepContainer,")
    for name, module in net.named_modules():
        if isinstance(module, base.StepModule) and mode not in module.supported_step_mode():
            lacks, other = ("single", "time first") if mode == "s" else ("multi", "timestep")
            raise ValueError(
                f"Layer {name!r} ({type(module).__name__}) has no {lacks}-step mode; use one that has{fix} "
                f"or give takes={other!r}."
            )
    functional.set_step_mode(net, mode)
    return SpikingJellyModel(net, num_steps, takes)


@contextmanager
def at_rest(net: nn.Module) -> Iterator[None]:
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
def single_step(net: nn.Module) -> Iterator[None]:
    """Within this context SpikingJelly's layers are in single-step mode. Raises ValueError if one has none."""
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
