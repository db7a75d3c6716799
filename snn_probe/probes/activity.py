"""How much a spiking network does: firing rates, synaptic operations, and the energy these would cost.

A synaptic operation is one input that is not zero arriving at one output. The number of outputs that an input reaches,
its fan-out, is exact: at the border of an image, and with stride or dilation, a pixel reaches fewer.

Energy by the convention of the papers (45 nm, 32-bit floating point; Horowitz, ISSCC 2014): 4.6 pJ per
multiply-accumulate, 0.9 pJ per accumulate. Everything but synaptic operations is left out: neurons, normalization,
bias, memory traffic. So only ratios between methods are comparable, not joules.
"""

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from snn_probe.distributed import dealt, gathered, pooled, together
from snn_probe.neurons.values_only import values_only
from snn_probe.probes import record
from snn_probe.probes.batching import device_of, on_device
from snn_probe.probes.timesteps import Placement, check_logits, placements
from snn_probe.results import Result
from snn_probe.temporal import Batches, check_temporal, first_tensor, probing, spiking_layers

MAC_PJ = 4.6
AC_PJ = 0.9
SYNAPTIC = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)

_CHECKED_EXAMPLES = 2  # how many examples of the first batch the run-time checks use


def spiking_activity(model: nn.Module, batches: Batches) -> Result:
    """Per layer and timestep: columns layer, timestep, firing_rate, synops, energy_pj; t counts from 1.

    ``firing_rate``: spikes per neuron in that timestep, mean over examples and neurons of a spiking layer (a spike of
    value v, where there are such, counts abs(v)). ``synops``: synaptic operations of a Conv or Linear layer in that
    timestep, mean over examples; ``energy_pj`` their energy, 0.9 pJ each. The first such layer, if no spiking layer
    comes before it, has analog input (event counts too): there every input counts, zero or not, at 4.6 pJ. Direct
    encoding shows the image at every timestep, and the papers count this layer T times; so does this table, though
    ``from_spikingjelly`` computes it once. Rows are in the model's order, the values that a layer has not are NaN;
    layer "all" has the mean over all neurons and the sums over all synaptic layers.

    Settings: ``mac_layer``; ``dense_macs``, the multiply-accumulates per layer for one example and timestep if no input
    were zero; ``uncounted_layers``, other modules with weights, whose operations are missing in "all".
    Raises ValueError for a model without spiking layers, one that breaks the temporal contract, and batches that are
    empty or not finite.
    """
    began = time.perf_counter()
    with together(), probing(model):
        if not spiking_layers(model):
            raise ValueError(
                "The model has no spiking layers (modules with a surrogate_function or spike_grad), so spiking_activity "
                "has nothing to count; put its spike function into a module under one of these names."
            )
        stream = on_device(batches, device_of(model))
        first = next(stream)
        num_steps = check_temporal(model, first[0][:_CHECKED_EXAMPLES])
        counters = _counters(model, first[0], num_steps)
        count = 0
        with torch.no_grad(), values_only(model), _counting(counters.values()):
            for inputs, labels in dealt(chain([first], stream)):
                check_logits(model(inputs), num_steps)
                count += len(labels)
    count = sum(gathered(count))
    for counter in counters.values():
        counter.pool()
    analog = next((name for name, c in counters.items() if c.analog), None)
    settings = {
        "num_steps": num_steps,
        "num_examples": count,
        "mac_layer": analog,
        "dense_macs": {name: c.dense for name, c in counters.items() if isinstance(c, _Synapses)},
        "uncounted_layers": _uncounted(model),
    }
    order = [name for name, _ in model.named_modules() if name in counters]
    rows = _rows([counters[name] for name in order], num_steps, count)
    return record.result("spiking_activity", rows, settings, model=model, began=began)


def energy_ratio(result: Result) -> float:
    """Energy of all timesteps over that of the same network without spikes: one pass, no input zero, MACs throughout.

    ``result`` is one of ``spiking_activity``. Below 1 the spiking network needs less. ValueError for another result.
    """
    if result.probe != "spiking_activity" or "dense_macs" not in result.settings:
        raise ValueError(f"energy_ratio: got a result of {result.probe!r}; give one of spiking_activity.")
    table = result.table
    dense = MAC_PJ * sum(result.settings["dense_macs"].values())
    return float(table.loc[table["layer"] == "all", "energy_pj"].sum() / dense) if dense else float("nan")


class _Counter:
    """Sums over examples, per timestep, of what one layer does."""

    analog = False

    def __init__(self, name: str, module: nn.Module, placement: Placement):
        self.name, self.module, self.placement = name, module, placement
        self.sums = torch.zeros(placement.num_steps, dtype=torch.float64, device=placement.inputs[0].device)
        self.calls = 0
        self.uses = 1 if placement.stepwise else len(placement.inputs)  # in one timestep

    def add(self, x: Tensor) -> None:
        """Count one call; what is computed once for all timesteps counts at each."""
        found = self.count(self.placement.arrange(x))
        if self.placement.stepwise:
            self.sums[self.calls % self.placement.num_steps] += found[0]
        else:
            self.sums += found
        self.calls += 1

    def hook(self, module: nn.Module, args: Any, result: Any) -> None:
        """A forward hook that counts the call."""
        raise NotImplementedError

    def pool(self) -> None:
        """Add what the other processes counted."""
        self.sums = pooled(self.sums)

    def count(self, x: Tensor) -> Tensor:
        """(S, N, ...) -> (S,) in float64."""
        raise NotImplementedError


class _Spikes(_Counter):
    def __init__(self, name: str, module: nn.Module, placement: Placement):
        super().__init__(name, module, placement)
        self.neurons = 0  # of one example

    def hook(self, module, args, result):
        self.add(first_tensor(self.name, result))

    def pool(self) -> None:
        super().pool()
        self.neurons = max(gathered(self.neurons))  # 0 where there was no batch

    def count(self, x: Tensor) -> Tensor:
        self.neurons = x[0, 0].numel() * self.uses
        return x.abs().flatten(1).sum(1, dtype=torch.float64)


class _Synapses(_Counter):
    def __init__(self, name: str, module: nn.Module, placement: Placement):
        super().__init__(name, module, placement)
        self.fan_outs: dict[tuple[int, ...], Tensor] = {}
        ones = [torch.ones_like(placement.arrange(x)) for x in placement.inputs[: self.uses]]
        self.dense = float(sum(self.count(x)[0] for x in ones))

    def hook(self, module, args, result):
        x = first_tensor(self.name, args)
        self.add(torch.ones_like(x) if self.analog else x)

    def count(self, x: Tensor) -> Tensor:
        if isinstance(self.module, nn.Linear):
            return (x != 0).flatten(1).sum(1).double() * self.module.out_features
        space = tuple(x.shape[3:])
        if space not in self.fan_outs:
            self.fan_outs[space] = _fan_out(self.module, space).flatten().to(x.device)
        return (x != 0).sum((1, 2)).flatten(1).double() @ self.fan_outs[space]


def _fan_out(module: Any, space: tuple[int, ...]) -> Tensor:
    """How many outputs each position of an input channel of a convolution reaches, in the shape ``space``.

    The input gradient of the same convolution with one channel and a kernel of ones, times the output channels that an
    input channel is connected to.
    """
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[len(space) - 1]
    shape = {name: getattr(module, name) for name in ("kernel_size", "stride", "padding", "dilation", "padding_mode")}
    ones = torch.nn.utils.skip_init(kind, 1, 1, bias=False, dtype=torch.float64, **shape)
    with torch.enable_grad():
        nn.init.ones_(ones.weight)
        x = torch.zeros(1, 1, *space, dtype=torch.float64, requires_grad=True)
        (reached,) = torch.autograd.grad(ones(x).sum(), x)
    return reached[0, 0] * (module.out_channels // module.groups)


def _counters(model: nn.Module, inputs: Tensor, num_steps: int) -> dict[str, _Counter]:
    """A counter for every spiking and synaptic layer that is used, by name, in the order of first use."""
    spiking = spiking_layers(model)
    layers = spiking | {name: m for name, m in model.named_modules() if isinstance(m, SYNAPTIC) and name not in spiking}
    found = placements(model, layers, inputs, num_steps)
    if not spiking.keys() & found.keys():
        raise ValueError("None of the model's spiking layers is used in its forward; there is no activity to count.")
    counters: dict[str, _Counter] = {
        n: (_Spikes if n in spiking else _Synapses)(n, layers[n], placement) for n, placement in found.items()
    }
    earliest = next(iter(counters.values()))
    earliest.analog = isinstance(earliest, _Synapses)
    return counters


@contextmanager
def _counting(counters: Iterable[_Counter]) -> Iterator[None]:
    """Within this context every call of a layer is counted."""
    handles = [counter.module.register_forward_hook(counter.hook) for counter in counters]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _uncounted(model: nn.Module) -> list[str]:
    """Modules with weights of two or more axes that are neither Conv nor Linear."""
    return [
        name
        for name, module in model.named_modules()
        if not isinstance(module, SYNAPTIC) and any(p.ndim > 1 for p in module.parameters(recurse=False))
    ]


def _rows(counters: list[_Counter], num_steps: int, count: int) -> list[dict]:
    def row(layer: str, t: int, rate: float, synops: float, energy: float) -> dict:
        return {"layer": layer, "timestep": t + 1, "firing_rate": rate, "synops": synops, "energy_pj": energy}

    rows, neurons = [], sum(c.neurons for c in counters if isinstance(c, _Spikes))
    spikes, synops, energy = torch.zeros(3, num_steps, dtype=torch.float64).tolist()
    for c in counters:
        for t, value in enumerate((c.sums / count).tolist()):
            if isinstance(c, _Spikes):
                spikes[t] += value
                rows.append(row(c.name, t, value / c.neurons, math.nan, math.nan))
            else:
                cost = value * (MAC_PJ if c.analog else AC_PJ)
                synops[t], energy[t] = synops[t] + value, energy[t] + cost
                rows.append(row(c.name, t, math.nan, value, cost))
    return rows + [row("all", t, spikes[t] / neurons, synops[t], energy[t]) for t in range(num_steps)]
