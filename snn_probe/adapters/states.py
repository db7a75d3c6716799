"""What a network remembers from one call to the next besides its parameters, and putting it back."""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


@contextmanager
def states_kept(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Afterwards each module has the states it had: the same tensors, under the same names.

    States are its SpikingJelly memories, its buffers (snnTorch keeps membrane potentials among them) and tensors that
    are plain attributes (networks written by hand). Tensors changed in place keep the change.
    """
    kept = [(module, [dict(states) for states in _states(module)]) for module in modules]
    try:
        yield
    finally:
        for module, before in kept:
            for states, old in zip(_states(module), before, strict=True):
                states.clear()
                states.update(old)
            attributes = vars(module)
            for name in [name for name in _tensors(module) if name not in before[-1]]:
                del attributes[name]
            attributes.update(before[-1])


@contextmanager
def attributes_kept(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Afterwards each module has the attributes it had, of any kind: the same objects under the same names.

    Tensors among them, buffers and memories have their values again; lists, dicts and sets (its hooks and buffers too) their
    entries. What lies deeper is not looked into.
    """
    kept = [(vars(module), dict(vars(module)), _contents(module)) for module in modules]
    try:
        yield
    finally:
        for attributes, before, contents in kept:
            attributes.clear()
            attributes.update(before)
            for thing, value in contents:
                _put_back(thing, value)


@contextmanager
def random_states_kept(devices: Sequence[int]) -> Iterator[None]:
    """Afterwards the random states of torch (CPU and these CUDA devices), numpy and Python are what they were."""
    state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 - the global one, which is not used here
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)  # noqa: NPY002


def seed_all(seed: int) -> None:
    """Seed what a network may draw from: torch, numpy and Python; inside :func:`random_states_kept`."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)


Place = tuple[int, int, str]
"""Which of several modules, which of its kinds of states, and the name there."""


def remembered(modules: Sequence[nn.Module]) -> dict[Place, Tensor]:
    """Copies of all states, as in :func:`states_kept`, that are tensors of floats."""
    return {
        (i, kind, name): value.detach().clone()
        for i, module in enumerate(modules)
        for kind, states in enumerate(_states(module))
        for name, value in states.items()
        if isinstance(value, Tensor) and value.is_floating_point()
    }


def set_states(modules: Sequence[nn.Module], values: Mapping[Place, Tensor]) -> None:
    """Put these in the place of the states there; inside :func:`attributes_kept`."""
    for (i, kind, name), value in values.items():
        (*_states(modules[i])[:2], vars(modules[i]))[kind][name] = value


def _contents(module: nn.Module) -> list[tuple[Any, Any]]:
    """What may be changed in place, each with a copy of its value."""
    values = [value for part in (vars(module), *_states(module)[:2]) for value in part.values()]
    found = [(value, value.detach().clone()) for value in values if isinstance(value, Tensor)]
    return found + [(value, value.copy()) for value in values if isinstance(value, list | dict | set)]


def _put_back(thing: Any, value: Any) -> None:
    if isinstance(thing, Tensor):
        if not torch.equal(thing, value):
            with torch.no_grad():
                thing.copy_(value)
    elif isinstance(thing, list):
        thing[:] = value
    else:
        thing.clear()
        thing.update(value)


def _states(module: nn.Module) -> tuple[dict, ...]:
    """Its buffers, its memories, and a new dict of its tensors, which is no place to write to."""
    memories = getattr(module, "_memories", None)
    return module._buffers, memories if isinstance(memories, dict) else {}, _tensors(module)


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in vars(module).items() if isinstance(value, Tensor)}
