"""A network of the user's own, made by a factory that is named as ``package.module:factory``.

    def build(num_steps, num_classes):
        return from_spikingjelly(nn.Sequential(...), num_steps)

The factory is called by keyword with those of ``input_shape``, ``num_classes``, ``num_steps``, ``width`` and ``neuron``
that it takes, possibly none, and returns a temporal model: an ``nn.Module`` whose ``model(inputs)`` gives logits
(T, N, C). Networks of SpikingJelly or snnTorch are wrapped inside it, with ``from_spikingjelly`` or ``from_snntorch``.
``num_steps`` is T where inputs are static (N, ...), None where they are streams (N, T, ...), as both wrappers take it.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from snn_probe.own import accepted, called, found
from snn_probe.temporal import check_temporal, probing

_CHECKED = 3  # examples


def own_network(name: str, *, seed: int, width: float = 1.0, neuron: Any = None, **described: Any) -> nn.Module:
    """What the factory ``name`` makes, with torch's random numbers drawn from ``seed`` and left as they were.

    ``described``: input_shape (of one timestep), num_classes and num_steps. Raises ValueError, one sentence, for a
    factory that fails, takes no ``width`` or ``neuron`` although one is given, or returns something else.
    """
    with torch.random.fork_rng(devices=[]):
        factory = found(name, "--model")
        _check_factory(name, factory, {"width": width != 1.0, "neuron": neuron is not None})
        torch.default_generator.manual_seed(seed)
        model = called(name, factory, **described, width=width, neuron=neuron)
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"{name} returned {type(model).__name__}, not a torch.nn.Module; return a model whose model(inputs) gives "
            "logits (T, N, C)."
        )
    return model


def _check_factory(name: str, factory: Any, given: Mapping[str, bool]) -> None:
    if isinstance(factory, nn.Module):
        raise ValueError(f"{name} is a network, not a function that makes one; name a function that returns it.")
    if refused := [key for key, is_given in given.items() if is_given and not accepted(factory, [key])]:
        raise ValueError(f"{refused[0]} is given, but {name} takes no {refused[0]}; leave it out.")


def check_own_network(name: str, model: nn.Module, split: Any, num_steps: int, described: Mapping[str, Any]) -> None:
    """:func:`check_temporal` on the first examples of a split, its sentence beginning with the factory's name."""
    inputs, _ = split.take(torch.arange(min(_CHECKED, len(split))))
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    try:
        check_temporal(model, inputs.to(device), num_steps=num_steps, num_classes=described["num_classes"])
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    except (RuntimeError, TypeError, IndexError, AttributeError) as error:
        said = " ".join(str(error).split()).rstrip(".")
        raise ValueError(
            f"{name}: the model raised {type(error).__name__} ({said}) on inputs of shape {tuple(inputs.shape)}; make "
            "it take these."
        ) from error


def check_own_objective(name: str, objective: Any, model: nn.Module, split: Any) -> None:
    """ValueError unless the objective of the first examples is what it is when each of them is there twice, as that of
    a mean over the examples is. One that is drawn anew at each call is not judged."""
    inputs, labels = split.take(torch.arange(min(_CHECKED, len(split))))
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    with probing(model), torch.no_grad():
        logits, labels = model(inputs.to(device)), labels.to(device)
        params = {key: p for key, p in model.named_parameters() if p.requires_grad}
        once, again = (float(objective(logits, labels, params)) for _ in range(2))
        twice = float(objective(logits.repeat(1, 2, 1), labels.repeat(2), params))
    if once == again and abs(twice - once) > 1e-3 * abs(once):
        raise ValueError(
            f"{name} returned {once:.4g} for {len(labels)} examples and {twice:.4g} for the same examples twice over; "
            "return the mean over the examples, not their sum."
        )
