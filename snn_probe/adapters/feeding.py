"""How inputs reach a network made for another library: timestep by timestep, or all at once in one of three orders."""

from collections.abc import Iterator

from torch import Tensor, nn

TAKES = ("timestep", "time first", "examples first", "image")
"""What the forward of a network takes: (N, ...) at each timestep; (T, N, ...); (N, T, ...); or a static image (N, ...)
once, which the network itself shows for T timesteps."""


def check_arguments(net: nn.Module, num_steps: int | None, takes: str, made_of: str) -> None:
    """ValueError, in one sentence, for arguments that no adapter understands."""
    if not isinstance(net, nn.Module):
        raise ValueError(f"net is {type(net).__name__}; give a torch.nn.Module made of {made_of}.")
    if num_steps is not None and (isinstance(num_steps, bool) or not isinstance(num_steps, int) or num_steps < 1):
        raise ValueError(
            f"num_steps is {num_steps!r}; give a whole number of at least 1 for static images, or None for streams."
        )
    if takes not in TAKES:
        raise ValueError(f"takes is {takes!r}; give what the network's forward takes, one of {', '.join(TAKES)}.")
    if takes == "image" and num_steps is None:
        raise ValueError("takes is 'image' but num_steps is None; give num_steps=T, the timesteps that it simulates.")


def time_first(streams: Tensor) -> Tensor:
    """Streams (N, T, ...) -> (T, N, ...). Raises ValueError for inputs that are no streams."""
    if streams.ndim < 3:
        raise ValueError(
            f"inputs have shape {tuple(streams.shape)}; streams are (N, T, ...): for static images give num_steps."
        )
    return streams.transpose(0, 1)


def timesteps(inputs: Tensor, num_steps: int | None) -> Iterator[Tensor]:
    """What the network sees at t = 1..T, each (N, ...)."""
    if num_steps is None:
        yield from time_first(inputs)
    else:
        yield from [inputs] * num_steps


def at_once(inputs: Tensor, num_steps: int | None, takes: str) -> Tensor:
    """What a network is given that runs over time in its own forward."""
    if takes == "image":
        return inputs
    sequence = time_first(inputs) if num_steps is None else inputs.expand(num_steps, *inputs.shape)
    return sequence if takes == "time first" else sequence.transpose(0, 1)
