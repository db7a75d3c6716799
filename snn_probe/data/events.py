"""`event-digits`: the digits as a SIMULATED event camera sees them while it moves along three saccades.

An event camera sends no pictures. Each pixel remembers the log intensity at its last event and sends an event when
the light has changed by a threshold since: ON for brighter, OFF for darker. As in N-MNIST (Orchard et al., Frontiers
in Neuroscience 2015) the camera looks at a still image and moves along a triangle, so that edges become events.

These are not recordings. A real sensor also has pixels with unequal thresholds and limited speed, a pause after each
event, hot pixels, noise that grows in the dark, events that queue up when many pixels fire at once, and times in
microseconds; here there are 120 moments of 2.5 ms, one threshold, and noise that is the same everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

import numpy as np
import torch

from . import digits

SENSOR_SIZE = 16  # pixels on a side
MAGNIFICATION = 1.5  # sensor pixels per image pixel: the 8 pixels of a digit cover 12, which leaves room to move
DURATION = 0.3  # seconds: three saccades of 100 ms, as in N-MNIST
NUM_MOMENTS = 120  # sub-steps of 2.5 ms; T = 1, 2, 3, 4, 5, 6, 8, 10, 12, 15 and 20 divide it
# Corners of the path as (rows, columns) in sensor pixels: an isosceles triangle, short side first. A saccade of one
# pixel shows only part of the digit, so the evidence is still incomplete after it; the two long ones bring the rest.
# With 2 pixels at most from the centre every point of the digit stays on the sensor.
TRIANGLE = ((-2.0, -0.5), (-2.0, 0.5), (2.0, 0.0))
DARK_LEVEL = 0.2  # added to the intensity in [0, 1], so that full ink against background is 6:1, a modest contrast
# Log intensity per event, a factor 1.65: a little sensitive sensor (the v2e simulator's usual setting is 0.2), which
# sees some 3 events at the strongest edge (log 6 = 1.8), so that counts stay small.
THRESHOLD = 0.5
NOISE_RATE = 1.0  # background events per second, pixel and polarity; v2e's "noisy" setting is 2.5, its "clean" one 0
NOISE_SEED = 0


def read(split: str, num_steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Event counts (N, T, 2, 16, 16) float32 and labels (N,) int64 of one of `digits.SPLITS`, as fresh tensors.

    Images and splits are those of `digits`. Frames are `num_steps` (T) equal pieces of time; channel 0 counts ON events
    (brighter), channel 1 OFF events (darker). Raises ValueError if `num_steps` is not in 1..NUM_MOMENTS.
    """
    chosen = list(digits.split_indices()[split])
    _, labels = digits.all_digits()
    return torch.from_numpy(_all_frames(num_steps)[chosen].astype(np.float32)), torch.from_numpy(labels[chosen])


@lru_cache(maxsize=2)
def _all_frames(num_steps: int) -> np.ndarray:
    """Read-only counts of all 1797 digits, in scikit-learn's order; about a second to make."""
    images, _ = digits.all_digits()
    frames = record(images, num_steps=num_steps)
    frames.setflags(write=False)
    return frames


def record(
    images: np.ndarray, *, num_steps: int, path: np.ndarray | None = None, noise_rate: float = NOISE_RATE
) -> np.ndarray:
    """Counts of events (N, T, 2, 16, 16) int16 while the camera sees `images` (N, 8, 8) move along `path`.

    `path` is (K + 1, 2), default `saccades()`: where the image lies at K + 1 moments that share out DURATION evenly.
    Events between moments k and k + 1 belong to frame floor(k T / K), so the stream itself does not depend on T, and T
    frames summed in pairs are the T / 2 frames. Before the camera moves, each pixel's memory is off by a random part of
    a threshold (it last fired some time ago). Background events are a Poisson process at `noise_rate` (Hz); they leave
    the memory alone. Image n draws from its own `RandomState([NOISE_SEED, n])`, a stream NumPy promised to keep.

    Raises ValueError if `num_steps` is not in 1..K.
    """
    path = saccades() if path is None else path
    num_moments = len(path) - 1
    if not 1 <= num_steps <= num_moments:
        raise ValueError(
            f"num_steps is {num_steps}, but the stream has {num_moments} moments to share out among the frames; "
            f"give a whole number from 1 to {num_moments}."
        )
    images = images.astype(np.float64)  # in float32 rounding would decide some events, differently on other machines
    offsets, noise = _randomness(len(images), num_moments, noise_rate)
    memory = log_intensity(images, path[0]) + offsets * THRESHOLD
    levels = (log_intensity(images, shift) for shift in path[1:])
    frames = np.zeros((len(images), num_steps, 2, SENSOR_SIZE, SENSOR_SIZE), dtype=np.int16)
    for k, events in enumerate(pixel_events(levels, memory, threshold=THRESHOLD)):
        frames[:, k * num_steps // num_moments, 0] += np.maximum(events, 0)
        frames[:, k * num_steps // num_moments, 1] += np.maximum(-events, 0)
    image, moment, cell = noise  # added with add.at, for a cell that is named twice must count twice
    np.add.at(frames.reshape(len(images), num_steps, -1), (image, moment * num_steps // num_moments, cell), 1)
    return frames


def saccades() -> np.ndarray:
    """Where the image lies, in (rows, columns) of the sensor from its centre, at NUM_MOMENTS + 1 moments: (K + 1, 2).

    Along the sides of `TRIANGLE` and back to its first corner, one third of the time for each side. After a part u of
    that time the image has gone 3 u^2 - 2 u^3 of the side: it starts from rest and stops, as motors and eyes do.
    """
    corners = np.array([*TRIANGLE, TRIANGLE[0]])
    time = np.arange(NUM_MOMENTS + 1) / NUM_MOMENTS * len(TRIANGLE)
    side = np.minimum(time.astype(int), len(TRIANGLE) - 1)
    way = (time - side) ** 2 * (3 - 2 * (time - side))
    return corners[side] + (corners[side + 1] - corners[side]) * way[:, None]


def log_intensity(images: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """log(I + DARK_LEVEL) at each pixel (N, 16, 16), the images (N, 8, 8) moved by `shift` = (rows, columns).

    I is bilinear between image pixels and zero outside. Sensor pixel r sees image place (r - 7.5 - shift) / 1.5 + 3.5.
    """
    size = images.shape[-1]
    centred = np.arange(SENSOR_SIZE) - (SENSOR_SIZE - 1) / 2
    rows, columns = (
        np.maximum(0, 1 - np.abs(((centred - part) / MAGNIFICATION + (size - 1) / 2)[:, None] - np.arange(size)))
        for part in shift
    )
    return np.log(rows @ images @ columns.T + DARK_LEVEL)


def pixel_events(levels: Iterable[np.ndarray], memory: np.ndarray, *, threshold: float) -> Iterator[np.ndarray]:
    """For each array of log intensities in turn, the events of each pixel as whole int16 numbers: +n is n ON, -n n OFF.

    n = trunc((level - memory) / threshold), after which the memory has moved by n thresholds: what falls short of a
    threshold is kept, not lost. `memory` (any shape, that of the levels) is the level before the first; it is copied.
    """
    memory = memory.copy()
    for level in levels:
        events = np.trunc((level - memory) / threshold)
        memory += events * threshold
        yield events.astype(np.int16)


def _randomness(num_images: int, num_moments: int, noise_rate: float) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Offsets of the memory in (-1, 1) thresholds, (N, 16, 16), and the noise as (image, moment, cell) of each event.

    A Poisson process: a Poisson number of events, each in any moment and in any of the 2 x 16 x 16 cells alike.
    """
    cells = 2 * SENSOR_SIZE * SENSOR_SIZE
    offsets, counts, moments, places = [], [], [], []
    for number in range(num_images):
        rng = np.random.RandomState([NOISE_SEED, number])
        offsets.append(rng.uniform(-1, 1, (SENSOR_SIZE, SENSOR_SIZE)))
        counts.append(rng.poisson(noise_rate * DURATION * cells))
        moments.append(rng.randint(num_moments, size=counts[-1]))
        places.append(rng.randint(cells, size=counts[-1]))
    image = np.repeat(np.arange(num_images), counts)
    return np.stack(offsets), (image, np.concatenate(moments), np.concatenate(places))
