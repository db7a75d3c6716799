"""How far the loss reaches back in time: gradients at the input current of spiking layers, timestep by timestep.

For h[t] = leak v[t-1] + I[t] the gradient dL/dI[t] is the membrane gradient dL/dh[t], and so measures what is left of
the loss at step t for learning. Written out (arXiv 2402.04663), with P[t] what arrives from the layers above and eps
the layer's own path through time,

    dL/dh[t] = P[t] + sum_{t'>t} P[t'] prod_{t<=s<t'} eps[s],   P[t] = dL/ds[t] ds[t]/dh[t].

Because only a layer's input and output are looked at, any neuron can be measured; the split into P and the rest needs
a SpikingJelly neuron that can be run by itself, one timestep at a time.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from snn_probe.distributed import dealt, gathered, pooled, together
from snn_probe.neurons.multi_step import fast_training
from snn_probe.parameters import trainable
from snn_probe.probes import record
from snn_probe.probes.batching import device_of, on_device
from snn_probe.probes.spatial import spatial_norms, summed_norms
from snn_probe.probes.timesteps import Placement, check_logits, placements
from snn_probe.results import IDENTIFYING, Result
from snn_probe.temporal import Batches, check_temporal, first_tensor, probing, spiking_layers

Objective = Callable[..., Tensor]

_CHECKED_EXAMPLES = 2  # how many examples of the first batch the run-time checks use


def temporal_gradient_norms(
    model: nn.Module, batches: Batches, objective: Objective, *, layers: Iterable[str] | None = None
) -> Result:
    """Norm of dL_n/dI_n[t] per spiking layer and timestep: columns layer, timestep, norm, norm_spatial, fraction_zero.

    ``norm``: mean over examples n of the L2 norm over the layer's neurons; L_n is the objective of example n alone, I
    the layer's input current, t = 1..T. ``norm_spatial``: the same with the layer's own path through time cut, that is
    of P[t] dh/dI, where dL/ds[t] is the full gradient at the spikes the layer emits; it is found by replaying the layer
    over its recorded currents with its memories detached between timesteps, and NaN where that is impossible or gives
    other spikes (settings: ``spatial_left_out``). ``fraction_zero``: of the entries of dL/dI[t], those exactly zero.

    ``layers``: names of modules whose first input is the current; None takes all spiking layers that are used. The
    objective is a mean over examples (checked); its penalty on weights, if any, does not matter. Where a current also
    feeds something beside the layer, only what flows through the layer counts. Norms depend on the number of neurons
    and on the objective: compare timesteps of a layer, or the same layer of different networks, not layers.

    Raises ValueError for a bad argument, a model that breaks the temporal contract or has no spiking layer, a layer
    that does not run once per timestep, and batches that are empty or not finite.
    """
    began = time.perf_counter()
    if not callable(objective):
        raise ValueError(
            f"objective is {objective!r}; give SDT(), TET(), TRT() or a function of (logits, labels, params)."
        )
    with together(), probing(model):
        chosen = _chosen(model, layers)
        params = trainable(model)
        stream = on_device(batches, device_of(model))
        first = next(stream)
        num_steps = check_temporal(model, first[0][:_CHECKED_EXAMPLES])
        _check_mean(model, objective, params, *(x[:_CHECKED_EXAMPLES] for x in first))
        taken = _layers(model, chosen, first[0], num_steps, given=layers is not None)
        count = 0
        for inputs, labels in dealt(chain([first], stream)):
            _add(model, objective, params, taken, inputs, labels, num_steps)
            count += len(labels)
    count = sum(gathered(count))
    for layer in taken:
        layer.pool()
    settings = {
        "objective": repr(objective),
        "layers": "all spiking" if layers is None else [layer.name for layer in taken],
        "num_steps": num_steps,
        "num_examples": count,
        "spatial_left_out": {layer.name: layer.left_out for layer in taken if layer.left_out},
        "unused_layers": [name for name in chosen if name not in {layer.name for layer in taken}],
    }
    rows = [row for layer in taken for row in layer.rows(count)]
    return record.result("temporal_gradient_norms", rows, settings, model=model, began=began)


def gradient_ratio(table: pd.DataFrame) -> pd.DataFrame:
    """``norm`` at the first timestep divided by that at the last: columns layer, ratio; NaN where the last is zero.

    ``table`` is that of a result, or of ``combine(results)``, whose identifying columns then come first. Below 1 the
    loss reaches early timesteps less than late ones. Raises ValueError for another kind of table.
    """
    if missing := [name for name in ("layer", "timestep", "norm") if name not in table]:
        raise ValueError(
            f"the table has no column {missing[0]!r}; give the table of a temporal_gradient_norms result, or "
            "combine(results)"
        )
    keys = [*(name for name in IDENTIFYING if name in table), "layer"]
    found = []
    for _, group in table.groupby(keys, dropna=False, sort=False):
        if group["timestep"].duplicated().any():
            raise ValueError(f"layer {group['layer'].iloc[0]!r} has a timestep twice; combine different checkpoints")
        norms = group.sort_values("timestep")["norm"].to_numpy(dtype=float)
        found.append(group[keys].iloc[[0]].assign(ratio=norms[0] / norms[-1] if norms[-1] != 0 else math.nan))
    return pd.concat(found, ignore_index=True)


def _chosen(model: nn.Module, layers: Iterable[str] | None) -> dict[str, nn.Module]:
    """The modules to look at, by name, in the model's order."""
    spiking = spiking_layers(model)
    if layers is None:
        if not spiking:
            raise ValueError(
                "The model has no spiking layers (modules with a surrogate_function or spike_grad) for "
                "temporal_gradient_norms to look at; call the surrogate of its neurons so, in a module whose first input "
                "is the current, or name such modules with layers=[...] from Python."
            )
        return spiking
    modules = dict(model.named_modules())
    has = ", ".join(spiking) or "none"
    wanted = [layers] if isinstance(layers, str) or not isinstance(layers, Iterable) else list(layers)
    if not wanted or wanted == [layers]:
        raise ValueError(
            f"layers is {layers!r}; give None or a list of names of modules, such as its spiking ones: {has}."
        )
    for name in wanted:
        if name not in modules:
            raise ValueError(f"layers has {name!r}, which is no module of the model; its spiking ones are: {has}.")
    return {name: module for name, module in modules.items() if name in wanted}


def _check_mean(
    model: nn.Module, objective: Objective, params: dict[str, Tensor], inputs: Tensor, labels: Tensor
) -> None:
    """ValueError unless the objective of several examples is the mean of the objectives of each."""
    with torch.no_grad():
        logits = model(inputs)
    check_logits(logits, len(logits), labels)
    logits, labels = logits.repeat(1, 2, 1), labels.repeat(2)

    def gradient(n: int) -> Tensor:
        leaf = logits[:, :n].clone().requires_grad_()
        loss = objective(leaf, labels[:n], params)
        if not isinstance(loss, Tensor) or loss.ndim or not loss.requires_grad:
            raise ValueError(
                "The objective must return a scalar tensor that depends on the logits; return the mean loss."
            )
        return n * torch.autograd.grad(loss, leaf)[0]

    one, several = gradient(1), gradient(len(labels))[:, :1]
    if bool((one - several).abs().max() > 1e-4 * one.abs().max()):
        raise ValueError(
            "The objective of several examples is not the mean of theirs, so an example's own gradient cannot be told "
            "from it; return the mean over examples, not the sum."
        )


def _layers(model, chosen: dict[str, nn.Module], inputs: Tensor, num_steps: int, *, given: bool) -> "list[_Layer]":
    found = placements(model, chosen, inputs, num_steps)
    for name in chosen:
        if name not in found:
            if given or not found:
                raise ValueError(f"Layer {name!r} is not used in the model's forward; leave it out of layers.")
            continue
        if not found[name].once_per_timestep:
            raise ValueError(
                f"Layer {name!r} does not run once per timestep (calls: {len(found[name].inputs)}, T: {num_steps}), so "
                "it has no gradient per timestep; give layers without it."
            )
    return [_Layer(name, module, found[name]) for name, module in chosen.items() if name in found]


@dataclass
class _Call:
    """One call of a layer: its current and spikes, and their places in the graph (None: nothing flows through)."""

    current: Tensor
    d_current: GradientEdge | None
    spikes: Tensor | None = None
    d_spikes: GradientEdge | None = None


class _Layer:
    """A layer under the probe: its calls of one batch, and the sums over all batches."""

    def __init__(self, name: str, module: nn.Module, placement: Placement):
        self.name, self.module, self.placement = name, module, placement
        self.calls: list[_Call] = []
        self.norm, self.spatial, self.zeros = torch.zeros(3, placement.num_steps, dtype=torch.float64)
        self.neurons = 0  # of one example
        self.left_out = ""  # why there is no norm_spatial

    def enter(self, module, args):
        """Before the layer: what it is given becomes a tensor of its own, whose gradient is that of this use alone."""
        current = first_tensor(self.name, args)
        if current.is_floating_point() and not current.requires_grad:
            current = current.detach().requires_grad_()
        current = current.clone()
        self.calls.append(_Call(current.detach(), _edge(current)))
        return (current, *args[1:])

    def leave(self, module, args, result):
        """After the layer: the spikes it emits, apart from those that its own reset uses."""
        spikes = first_tensor(self.name, result).clone()
        self.calls[-1].spikes, self.calls[-1].d_spikes = spikes.detach(), _edge(spikes)
        return (spikes, *result[1:]) if isinstance(result, tuple) else spikes

    def joined(self, tensors: list[Tensor]) -> Tensor:
        """One tensor per call -> (T, N, ...)."""
        return torch.cat([self.placement.arrange(x) for x in tensors])

    def add(self, d_current: list[Tensor], d_spikes: list[Tensor]) -> None:
        gradient = self.joined(d_current)
        if len(gradient) != self.placement.num_steps:
            raise ValueError(f"Layer {self.name!r} ran {len(gradient)} timesteps; give streams of one length.")
        self.norm += summed_norms(gradient)
        self.zeros += (gradient == 0).flatten(1).sum(1).cpu()
        self.neurons = gradient[0, 0].numel()
        if not self.left_out:
            try:
                currents, spikes = (
                    self.joined([getattr(c, part) for c in self.calls]) for part in ("current", "spikes")
                )
                self.spatial += spatial_norms(self.module, currents, spikes, self.joined(d_spikes))
            except torch.OutOfMemoryError:
                raise
            except (RuntimeError, ValueError, TypeError, AttributeError, IndexError) as error:
                self.left_out = str(error) or type(error).__name__
        self.calls.clear()

    def pool(self) -> None:
        """Add what the other processes found."""
        self.norm, self.spatial, self.zeros = pooled(self.norm), pooled(self.spatial), pooled(self.zeros)
        self.neurons = max(gathered(self.neurons))  # 0 where there was no batch
        self.left_out = next(filter(None, gathered(self.left_out)), "")

    def rows(self, count: int) -> list[dict]:
        return [
            {
                "layer": self.name,
                "timestep": t + 1,
                "norm": float(self.norm[t]) / count,
                "norm_spatial": math.nan if self.left_out else float(self.spatial[t]) / count,
                "fraction_zero": float(self.zeros[t]) / (count * self.neurons),
            }
            for t in range(self.placement.num_steps)
        ]


def _edge(x: Tensor) -> GradientEdge | None:
    """The place of ``x`` in the graph; a clone has one of its own, which in-place operations later do not move."""
    return get_gradient_edge(x) if x.requires_grad else None


@contextmanager
def _recorded(layers: list[_Layer]) -> Iterator[None]:
    """Within this context each call of a layer is recorded in it."""
    handles = [layer.module.register_forward_pre_hook(layer.enter) for layer in layers]
    handles += [layer.module.register_forward_hook(layer.leave) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _add(model, objective: Objective, params, layers: list[_Layer], inputs: Tensor, labels: Tensor, num_steps: int):
    """Add one batch to the layers' sums."""
    with fast_training(model), _recorded(layers):
        logits = model(inputs)
    check_logits(logits, num_steps, labels)
    loss = objective(logits, labels, params) * len(labels)
    calls = [call for layer in layers for call in layer.calls]
    edges = [edge for call in calls for edge in (call.d_current, call.d_spikes) if edge is not None]
    found = list(torch.autograd.grad(loss, edges, allow_unused=True) if edges else ())
    found.reverse()

    def gradient(edge: GradientEdge | None, like: Any) -> Tensor:
        known = found.pop() if edge is not None else None
        return torch.zeros_like(like) if known is None else known

    for layer in layers:
        pairs = [(gradient(c.d_current, c.current), gradient(c.d_spikes, c.spikes)) for c in layer.calls]
        layer.add(*map(list, zip(*pairs, strict=True)))
