"""Where a layer's tensors hold timesteps and examples, for layers whose per-example gradients are contracted."""

from typing import Any

from torch import Tensor, nn

LINEAR = (nn.Linear,)
CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
LAYER_NORM = (nn.LayerNorm,)
GROUP_NORM = (nn.GroupNorm,)

LAYOUTS = ("TN", "1N", "T*N", "N*T", "N")  # two axes, merged time first, merged examples first, examples alone


def settled(
    name: str, module: nn.Module, gradients: tuple[Tensor | None, ...], *, num_steps: int, num_examples: int
) -> tuple[str, int]:
    """How a layer's uses order time and examples, one of LAYOUTS, and how many of the last axes are one event's.

    From output gradients of a loss of the first example alone: in the right layout they vanish for all other examples,
    and not for the first. Shapes alone cannot tell merged axes apart, nor (T, N) from (N, T) where T = N:
    ``num_examples`` must differ from ``num_steps`` here, and what is found holds for every batch. ValueError if nothing
    fits, or if the gradients vanish and shapes do not decide.
    """
    known = [g for g in gradients if g is not None]
    events = {event_axes(module, g, num_steps, num_examples) for g in known}
    fitting: list[tuple[str, bool]] = []
    for layout in LAYOUTS:
        try:
            pieces = [by_example(g, event, layout, num_steps, num_examples)[0] for g in known for event in events]
        except ValueError:
            continue
        if not any(p[:, 1:].any() for p in pieces):
            fitting.append((layout, any(bool(p[:, 0].any()) for p in pieces)))
    sure = [layout for layout, seen in fitting if seen]
    told = len(sure or fitting) == 1 or (sure and num_steps == 1)  # where one timestep makes all orders alike
    if len(events) != 1 or not told:
        raise ValueError(f"how layer {name!r} orders time and examples cannot be told")
    return sure[0] if sure else fitting[0][0], events.pop()


def by_example(x: Tensor, event: int, layout: str, time: int, examples: int) -> tuple[Tensor, tuple[int, ...]]:
    """``x`` as (steps, examples, *rest, *event) and rest; ValueError if the shape does not fit the layout."""
    lead, last = x.shape[: x.ndim - event], x.shape[x.ndim - event :]
    two = {"TN": (time, examples), "1N": (1, examples)}
    if layout in two and tuple(lead[:2]) == two[layout]:
        return x, tuple(lead[2:])
    if layout == "T*N" and lead and lead[0] == time * examples:
        return x.reshape(time, examples, *lead[1:], *last), tuple(lead[1:])
    if layout == "N*T" and lead and lead[0] == time * examples:
        return x.reshape(examples, time, *lead[1:], *last).transpose(0, 1), tuple(lead[1:])
    if layout == "N" and lead and lead[0] == examples:
        return x.unsqueeze(0), tuple(lead[1:])
    raise ValueError(f"shape {tuple(x.shape)} does not fit the layout {layout!r}")


def event_axes(module: nn.Module, x: Tensor, time: int, examples: int) -> int:
    """How many of the last axes of ``x`` are one event's: channels and space."""
    if isinstance(module, LINEAR):
        return 1
    if isinstance(module, CONV):
        return 1 + len(module.kernel_size)
    if isinstance(module, LAYER_NORM):
        return len(module.normalized_shape)
    channels, spaces = _channels_and_space(module, x)
    leads = ((examples,), (time * examples,), (time, examples), (1, examples))
    for space in spaces:
        lead = tuple(x.shape[: max(0, x.ndim - 1 - space)])
        if lead in leads and x.shape[len(lead)] == channels:
            return 1 + space
    raise ValueError(f"a norm has an input of unexpected shape {tuple(x.shape)}")


def _channels_and_space(module: Any, x: Tensor) -> tuple[int, tuple[int, ...]]:
    """A norm's channels, and how many axes of space its input may have, the likelier first."""
    if isinstance(module, GROUP_NORM):
        return module.num_channels, tuple(space for space in (x.ndim - 2, x.ndim - 3) if space >= 0)
    spaces = dict(zip(BATCH_NORM, ((0, 1), (2,), (3,)), strict=True))
    return module.num_features, next(spaces[kind] for kind in BATCH_NORM if isinstance(module, kind))
