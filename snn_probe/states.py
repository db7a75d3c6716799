"""What a module remembers from one call to the next besides its parameters, and putting it back."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

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


def _states(module: nn.Module) -> tuple[dict, ...]:
    """Its buffers, its memories, and a new dict of its tensors, which is no place to write to."""
    memories = getattr(module, "_memories", None)
    return module._buffers, memories if isinstance(memories, dict) else {}, _tensors(module)


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in vars(module).items() if isinstance(value, Tensor)}
