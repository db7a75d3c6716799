"""An snnTorch network as a temporal model. snnTorch itself is not needed: its neurons are known by what they do."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from snn_probe.adapters.feeding import at_once, check_arguments, timesteps
from snn_probe.adapters.states import states_kept

READOUTS = ("membrane", "spikes")


class SnnTorchModel(nn.Module):
    """An snnTorch network as a temporal model; made by :func:`from_snntorch`."""

    def __init__(self, net: nn.Module, num_steps: int | None, takes: str, readout: str | None):
        super().__init__()
        self.net = net
        self.num_steps = num_steps
        self.takes = takes
        self.readout = readout

    def forward(self, inputs: Tensor) -> Tensor:
        if self.takes == "timestep":
            return torch.stack(self.unrolled(inputs))
        with _at_rest(self.net):
            return self._logits(self.net(at_once(inputs, self.num_steps, self.takes)))

    def unrolled(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """The same logits as T tensors (N, C); the graph of the t-th reaches timesteps 1..t only. Raises ValueError
        for a network whose own forward runs over time."""
        if self.takes != "timestep":
            raise ValueError(f"The network takes {self.takes}, so it cannot be run one timestep at a time.")
        with _at_rest(self.net):
            return tuple(self._logits(self.net(x)) for x in timesteps(inputs, self.num_steps))

    def _logits(self, returned: object) -> Tensor:
        if isinstance(returned, Tensor) and self.readout is None:
            return returned
        if isinstance(returned, tuple) and returned and all(isinstance(part, Tensor) for part in returned):
            return returned[0 if self.readout == "spikes" else -1]
        if isinstance(returned, Tensor):
            raise ValueError(
                f"readout is {self.readout!r}, but the network returned one tensor, not (spikes, ..., membrane); give "
                "its last neuron output=True, or leave readout out to take the tensor as the logits."
            )
        raise ValueError(
            f"The network returned {type(returned).__name__}; return a tensor of logits, or tensors (spikes, ..., "
            "membrane) as snnTorch's neurons with output=True do."
        )


def from_snntorch(
    net: nn.Module, num_steps: int | None = None, *, takes: str = "timestep", readout: str | None = None
) -> nn.Module:
    """Wrap an snnTorch network so that ``model(inputs)`` gives logits (T, N, C) from rest.

    ``num_steps=T``: inputs are static images (N, ...), shown T times. ``num_steps=None``: inputs are streams
    (N, T, ...). ``takes`` is what the network's own forward takes: "timestep", one (N, ...) at a time, as an
    ``nn.Sequential`` of layers and neurons with ``init_hidden=True`` does; or, where it loops over time itself,
    "time first" (T, N, ...), "examples first" (N, T, ...) or "image", a static (N, ...) that it shows T times. A
    network whose states are arguments of its forward needs such a loop around it.

    The network returns logits, (N, C) for one timestep, or tensors (spikes, ..., membrane) as a last neuron with
    ``output=True`` gives them, of which ``readout`` picks "spikes" or "membrane" (None: the membrane potential, or the
    one tensor there is). Neurons are reset before each forward and get their own states back after it: no reset in the
    training loop, and no other network's states are touched, as ``snntorch.utils.reset`` does. Surrogates of snnTorch
    emit float32 spikes, so networks are float32.

    Raises ValueError for T < 1, an unknown ``takes`` or ``readout``, a network without snnTorch neurons, and, when
    called, for returned values of another form.
    """
    check_arguments(net, num_steps, takes, "snnTorch neurons")
    if readout not in (None, *READOUTS):
        raise ValueError(f"readout is {readout!r}; give membrane, spikes or None.")
    if not any(hasattr(module, "spike_grad") for module in net.modules()):
        raise ValueError(
            f"net ({type(net).__name__}) has no snnTorch neuron; use from_spikingjelly for SpikingJelly's, or no "
            "adapter for a module that already returns logits (T, N, C)."
        )
    return SnnTorchModel(net, num_steps, takes, readout)


@contextmanager
def _at_rest(net: nn.Module) -> Iterator[None]:
    """Reset before, so that nothing is carried over; afterwards the neurons' own states are back."""
    neurons = [module for module in net.modules() if hasattr(module, "spike_grad")]
    with states_kept(neurons):
        for neuron in neurons:
            reset = getattr(neuron, "reset_mem", None)  # neurons that run over time at once have no state
            if callable(reset):
                reset()
        yield
