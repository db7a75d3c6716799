"""Events to frames: against a loop over single events; resizing against pixels cut into equal parts."""

import re

import numpy as np
import pytest

from snn_probe.data.event_files import Events
from snn_probe.data.frames import integrate, resize


def random_events(number, sensor_size, seed=0):
    rng = np.random.default_rng(seed)
    height, width = sensor_size
    return Events(
        rng.integers(0, width, number).astype(np.uint8),
        rng.integers(0, height, number).astype(np.uint8),
        rng.integers(0, 2, number) == 1,
    )


def loop(events, num_steps, sensor_size):
    """Event by event: n // T to a frame, what is left to the last."""
    number, frames = len(events.x), np.zeros((num_steps, 2, *sensor_size), int)
    for i in range(number):
        frame = min(i // max(number // num_steps, 1), num_steps - 1)
        frames[frame, int(events.on[i]), events.y[i], events.x[i]] += 1
    return frames


@pytest.mark.parametrize("number, num_steps", [(1000, 10), (1009, 10), (19, 10), (7, 1), (10, 10)])
def test_counts_are_those_of_a_loop_over_events(number, num_steps):
    events = random_events(number, (5, 9))  # 45 pixels: most fire often
    frames = integrate(events, num_steps=num_steps, sensor_size=(5, 9))
    assert np.array_equal(frames, loop(events, num_steps, (5, 9)))


def test_frames_have_equal_numbers_and_the_last_takes_the_remainder():
    frames = integrate(random_events(1009, (5, 9)), num_steps=10, sensor_size=(5, 9))
    assert frames.sum((1, 2, 3)).tolist() == [100] * 9 + [109]


def test_a_pixel_that_fires_often_counts_often():
    events = Events(np.full(300, 4, np.uint8), np.full(300, 1, np.uint8), np.arange(300) < 290)
    frames = integrate(events, num_steps=1, sensor_size=(3, 6))
    assert (frames[0, 1, 1, 4], frames[0, 0, 1, 4], frames.sum()) == (290, 10, 300)


def test_fewer_events_than_frames_leave_the_last_frames_empty():
    frames = integrate(random_events(3, (5, 9)), num_steps=8, sensor_size=(5, 9))
    assert frames.sum((1, 2, 3)).tolist() == [1, 1, 1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    "x, y, seen", [(9, 2, "column 9, row 2"), (3, 5, "column 3, row 5"), (-1, 0, "column -1, row 0")]
)
def test_an_event_outside_the_sensor_is_refused(x, y, seen):
    events = Events(np.array([0, x, 99]), np.array([0, y, 99]), np.array([True, True, True]))
    said = f"has an event (number 1) at {seen}, but the sensor has 9 columns and 5 rows"
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        integrate(events, num_steps=1, sensor_size=(5, 9))


def test_no_event_is_refused():
    with pytest.raises(ValueError, match=r"^holds no event$"):
        integrate(random_events(0, (5, 9)), num_steps=4, sensor_size=(5, 9))


@pytest.mark.parametrize(
    "old, new", [((128, 128), (48, 48)), ((180, 240), (48, 48)), ((34, 34), (50, 17)), ((5, 7), (1, 7))]
)
def test_resizing_is_the_mean_over_the_area(old, new):
    """Every pixel cut into new[0] x new[1] equal parts: then whole blocks of old[0] x old[1] parts are the new ones."""
    counts = np.random.default_rng(0).poisson(2.0, (2, *old))
    parts = counts.repeat(new[0], -2).repeat(new[1], -1)
    expected = parts.reshape(2, new[0], old[0], new[1], old[1]).mean((2, 4))
    resized = resize(counts, new)
    assert resized.dtype == np.float32
    np.testing.assert_allclose(resized, expected, rtol=2e-6)
    ratio = new[0] * new[1] / (old[0] * old[1])
    np.testing.assert_allclose(resized.sum((1, 2), dtype=float), counts.sum((1, 2)) * ratio, rtol=1e-6)


def test_every_event_has_the_same_weight_wherever_it_falls():
    single = np.zeros((128, 128, 128))
    single[np.arange(128), np.arange(128), np.arange(128)[::-1]] = 1
    np.testing.assert_allclose(resize(single, (48, 48)).sum((1, 2)), (48 / 128) ** 2, rtol=1e-6)


def test_the_same_size_changes_nothing():
    counts = np.arange(2 * 5 * 9).reshape(2, 5, 9)
    assert np.array_equal(resize(counts, (5, 9)), counts)
