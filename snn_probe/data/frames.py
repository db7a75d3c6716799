"""From events to frames: T frames of equally many events each, as counts, and the same on fewer, larger pixels.

Symbols: T timesteps (frames), H rows, W columns. Channel 0 counts OFF events (polarity 0), channel 1 ON events.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from .event_files import Events


def integrate(events: Events, *, num_steps: int, sensor_size: tuple[int, int]) -> np.ndarray:
    """Counts (T, 2, H, W), T = `num_steps`: frame k holds events k n // T ... of the n, the last one the remainder too.

    That is, n // T events in every frame and n - (T - 1) (n // T) in the last, in the order of `events`; times play no
    part. A pixel that fired twice counts twice. Fewer events than frames make one event per frame, and then empty
    frames, so that no recording is lost for being short.

    Raises ValueError, whose text continues a sentence that begins with the file's name, if there is no event at all or
    one lies outside the sensor of `sensor_size` = (H, W).
    """
    height, width = sensor_size
    if not len(events.x):
        raise ValueError("holds no event")
    outside = (events.x >= width) | (events.y >= height) | (events.x < 0) | (events.y < 0)
    if np.any(outside):
        first = int(np.flatnonzero(outside)[0])
        raise ValueError(
            f"has an event (number {first}) at column {events.x[first]}, row {events.y[first]}, but the sensor has "
            f"{width} columns and {height} rows"
        )
    per_frame = max(len(events.x) // num_steps, 1)
    frame = np.minimum(np.arange(len(events.x)) // per_frame, num_steps - 1)
    cell = ((frame * 2 + events.on) * height + events.y) * width + events.x
    shape = (num_steps, 2, height, width)
    return np.bincount(cell, minlength=num_steps * 2 * height * width).reshape(shape)


def resize(counts: np.ndarray, frame_size: tuple[int, int]) -> np.ndarray:
    """`counts` (..., H, W) as float32 (..., h, w): every new pixel is the mean of `counts` over the area it covers.

    A pixel of which a part is covered counts for that part, so every event has the same weight wherever it fell, and
    the sum of a frame becomes exactly (h w) / (H W) times what it was. (torch's "area" mode covers whole pixels,
    some of them twice; bilinear sampling without smoothing leaves pixels out.)
    """
    if counts.shape[-2:] == tuple(frame_size):
        return counts.astype(np.float32)
    rows, columns = (_covering(old, new) for old, new in zip(counts.shape[-2:], frame_size, strict=True))
    return rows @ (counts.astype(np.float32) @ columns.T)


@lru_cache(maxsize=16)
def _covering(old: int, new: int) -> np.ndarray:
    """Weights (new, old) float32: how much of new pixel i (of old / new old pixels) each old pixel makes up."""
    edges = np.arange(new + 1) * old / new
    pixel = np.arange(old)
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    weights = (np.maximum(overlap, 0) * new / old).astype(np.float32)
    weights.setflags(write=False)
    return weights
