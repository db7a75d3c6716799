"""Loss, accuracy and firing rate of a model over all examples."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from snn_probe.neurons.values_only import values_only
from snn_probe.objectives import SDT
from snn_probe.temporal import Batches, first_tensor, probing, spiking_layers


@dataclass(frozen=True)
class Evaluation:
    """Over all examples: mean loss, accuracy of the time-mean logits, spikes per neuron and timestep (NaN where no
    spiking layer is known), and how many examples these are."""

    loss: float
    accuracy: float
    firing_rate: float
    num_examples: int


def evaluate(model: nn.Module, batches: Batches, objective=None) -> Evaluation:
    """Loss and accuracy in eval mode, without gradients; the model is left as it was.

    ``objective`` gives the loss (default SDT: cross-entropy of the time-mean logits); sums and counts are carried, so
    a short last batch weighs what it should. Predictions are the argmax of the time-mean logits. Batches go to the
    model's device. Raises ValueError for no examples.
    """
    objective = objective if objective is not None else SDT()
    loss = correct = spikes = places = count = 0.0
    with probing(model), torch.no_grad(), values_only(model), _counted_spikes(model) as counted:
        params = dict(model.named_parameters())
        device = next((p.device for p in params.values()), torch.device("cpu"))
        for inputs, labels in batches:
            inputs, labels = inputs.to(device), labels.to(device)
            logits = model(inputs)
            loss += float(objective(logits, labels, params)) * len(labels)
            correct += int((logits.mean(0).argmax(-1) == labels).sum())
            count += len(labels)
        spikes, places = counted
    if count == 0:
        raise ValueError("batches is empty; give at least one batch (inputs, labels).")
    return Evaluation(loss / count, correct / count, spikes / places if places else math.nan, int(count))


def fires(model: nn.Module, inputs: Tensor) -> bool:
    """Whether any spiking layer emits anything for these inputs; True where no spiking layer is known."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    with probing(model), torch.no_grad(), values_only(model), _counted_spikes(model) as counted:
        model(inputs.to(device))
        spikes, places = counted
    return spikes != 0 or places == 0


class _counted_spikes:
    """[spikes, neurons x timesteps x examples] of all spiking layers, counted by hooks while the context is open."""

    def __init__(self, model: nn.Module):
        self.layers, self.sums = spiking_layers(model).values(), [0.0, 0.0]

    def __enter__(self) -> list[float]:
        self.handles = [layer.register_forward_hook(self._add) for layer in self.layers]
        return self.sums

    def __exit__(self, *_):
        for handle in self.handles:
            handle.remove()

    def _add(self, layer, args, emitted):
        spikes = first_tensor(type(layer).__name__, emitted)  # layers of snnTorch return their membrane too
        self.sums[0] += float(spikes.sum(-1).sum(dtype=torch.float64))  # first in the spikes' type: exact and faster
        self.sums[1] += spikes.numel()
