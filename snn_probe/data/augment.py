"""Changes to training inputs that keep the label. Never for measurements: those take the examples as they are."""

from __future__ import annotations

import torch
from torch.nn.functional import pad


def random_shift(inputs: torch.Tensor, *, max_shift: int, generator: torch.Generator) -> torch.Tensor:
    """Each example moved by its own whole number of pixels, from U{-max_shift..max_shift} on either axis; a new tensor.

    `inputs` is (N, C, H, W) or (N, T, C, H, W); positive is down and right, zeros come in at the edge. All frames and
    channels of an example move together. The shifts are one draw of shape (N, 2), (rows, columns), from `generator`,
    so they are the same on every device if the generator is on the CPU. Zeros come in, unlike the roll often used on
    event frames, which lets what leaves at one edge come back at the other.

    Raises ValueError if `inputs` has neither four nor five dimensions, or `max_shift` is negative.
    """
    if inputs.dim() not in (4, 5):
        raise ValueError(
            f"inputs has shape {tuple(inputs.shape)}, which is no batch of images or frames; "
            "give (N, C, H, W) or (N, T, C, H, W)."
        )
    if max_shift < 0:
        raise ValueError(f"max_shift is {max_shift}, but it is a distance in pixels; give a whole number from 0 up.")
    num_examples, height, width = len(inputs), inputs.shape[-2], inputs.shape[-1]
    drawn = torch.randint(
        -max_shift, max_shift + 1, (num_examples, 2), generator=generator, device=generator.device
    ).to(inputs.device)
    # What comes to lie at row r was at row r + max_shift - shift of the padded image; likewise for columns.
    padded = pad(inputs, (max_shift,) * 4).flatten(1, -3)  # (N, T * C, H + 2 max_shift, W + 2 max_shift)
    rows = torch.arange(height, device=inputs.device) + max_shift - drawn[:, :1]
    columns = torch.arange(width, device=inputs.device) + max_shift - drawn[:, 1:]
    moved = padded.gather(2, rows[:, None, :, None].expand(-1, padded.shape[1], -1, padded.shape[3]))
    moved = moved.gather(3, columns[:, None, None, :].expand(-1, padded.shape[1], height, -1))
    return moved.view(inputs.shape)
