"""Data: fixed splits, the simulated event camera against physics and hand calculation."""

import dataclasses
import hashlib
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import RidgeClassifier

from snn_probe.data import DATASETS, SPLITS, Split, batches, digits, events, load

STEPS = {"digits": None, "event-digits": 4}
SIZES = {"train": 1258, "validation": 179, "test": 360}
# Of the image numbers as little-endian int64, in stored order: a published result stays on the images it was made on.
SHA256 = {
    "train": "e3e9db5fbf61d40c14e9d5100d554f18e9f3fb95eb7bcef06af012b413123b90",
    "validation": "5e9e1b76d60ed53611cfb7ea4cd859611ecc26c883198b4524c224b779a9dd42",
    "test": "1764ebeba893b452c74a8f784d1428314986b0b8b0e0e206d68c077f4164a4a3",
}


def sentence(text):
    return "^" + re.escape(text) + "$"


# --- load ---


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("split", SPLITS)
def test_loaded_split_is_as_described(name, split):
    info, data = DATASETS[name], load(name, split, num_steps=STEPS[name])
    steps = (4,) if info.temporal else ()
    assert data.inputs.shape == (SIZES[split], *steps, *info.input_shape)
    assert (data.inputs.dtype, data.labels.dtype, len(data)) == (torch.float32, torch.int64, SIZES[split])
    assert data.labels.unique().tolist() == list(range(info.num_classes))
    assert info.name == name and len(info.classes) == info.num_classes and info.description
    assert data.inputs.min() == 0 and data.inputs.is_contiguous()


def test_records_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        DATASETS["digits"].name = "other"
    with pytest.raises(dataclasses.FrozenInstanceError):
        load("digits", "test").inputs = None


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("num_examples", [None, 10])
def test_writing_into_loaded_tensors_changes_no_later_load(name, num_examples):
    first = load(name, "validation", num_steps=STEPS[name], num_examples=num_examples)
    inputs, labels = first.inputs.clone(), first.labels.clone()
    first.inputs.fill_(-7)
    first.labels.fill_(-7)
    again = load(name, "validation", num_steps=STEPS[name], num_examples=num_examples)
    assert torch.equal(again.inputs, inputs) and torch.equal(again.labels, labels)


@pytest.mark.parametrize("name", STEPS)
def test_num_examples_takes_the_first(name):
    whole, some = (load(name, "test", num_steps=STEPS[name], num_examples=n) for n in (None, 25))
    assert torch.equal(some.inputs, whole.inputs[:25]) and torch.equal(some.labels, whole.labels[:25])
    assert some.inputs.untyped_storage().nbytes() == some.inputs.nbytes  # the rest is not kept in memory


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"name": "mnist"},
            "name is 'mnist', which is no data set here; choose one of digits, event-digits, "
            "cifar10, cifar100, imagenet, image-folder, cifar10-dvs, n-caltech101, dvs128-gesture, n-mnist.",
        ),
        (
            {"split": "valid"},
            "split is 'valid', which digits does not have; choose one of train, validation, test.",
        ),
        *(
            (
                {"num_examples": n},
                f"num_examples is {n}, but the test split of digits has 360 examples; "
                "give a whole number from 1 to 360, or None for all of them.",
            )
            for n in (0, -1, 361)
        ),
        *(
            (
                {"name": "event-digits", "num_steps": n},
                f"num_steps is {n}, but event-digits holds event streams that must be cut into frames; "
                "give the number of frames, a whole number from 1 to 120.",
            )
            for n in (None, 0)
        ),
        (
            {"name": "event-digits", "num_steps": 121},
            "num_steps is 121, but the stream has 120 moments to share out among the frames; "
            "give a whole number from 1 to 120.",
        ),
    ],
)
def test_load_refuses(arguments, message):
    with pytest.raises(ValueError, match=sentence(message)):
        load(**{"name": "digits", "split": "test", **arguments})


def test_import_leaves_sklearn_alone():
    code = "import sys, snn_probe.data; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- batches ---


def test_batches_come_again_in_order_with_a_ragged_end():
    split = load("digits", "test", num_examples=10)
    pieces = batches(split, 4)
    for _ in range(2):
        assert [len(labels) for _, labels in pieces] == [4, 4, 2]
        assert torch.equal(torch.cat([inputs for inputs, _ in pieces]), split.inputs)
        assert torch.equal(torch.cat([labels for _, labels in pieces]), split.labels)
    assert len(pieces) == 3 and len(batches(split, 5)) == 2 and len(batches(split, 11)) == 1
    assert next(iter(pieces))[0].data_ptr() == split.inputs.data_ptr()
    assert list(batches(Split(split.inputs[:0], split.labels[:0]), 3)) == []
    with pytest.raises(
        ValueError, match=sentence("batch_size is 0, which holds no example; give a whole number from 1 up.")
    ):
        batches(split, 0)


# --- digits ---


def test_splits_use_every_image_once_and_are_pinned():
    indices = digits.split_indices()
    assert {split: len(numbers) for split, numbers in indices.items()} == SIZES
    assert sorted(sum(indices.values(), ())) == list(range(1797))
    hashes = {split: hashlib.sha256(np.array(n, dtype="<i8").tobytes()).hexdigest() for split, n in indices.items()}
    assert hashes == SHA256


def test_splits_are_stratified_and_every_beginning_is_balanced():
    everything = np.bincount(load_digits().target)
    for split, share in zip(SPLITS, (0.7, 0.1, 0.2), strict=True):
        labels = load("digits", split).labels
        counts = torch.bincount(labels)
        assert np.abs(counts.numpy() - share * everything).max() <= 1  # two roundings of at most half an image each
        for length in range(1, 10 * int(counts.min()) + 1):
            prefix = torch.bincount(labels[:length], minlength=10)
            assert prefix.max() - prefix.min() <= 1


def test_images_are_those_of_sklearn_in_unit_range():
    stored, data = load_digits(), load("digits", "train")
    numbers = list(digits.split_indices()["train"])
    assert torch.equal(data.inputs[:, 0] * 16, torch.tensor(stored.images[numbers], dtype=torch.float32))
    assert data.labels.tolist() == stored.target[numbers].tolist() and data.inputs.max() == 1


# --- event-digits ---


def test_events_of_one_pixel_worked_out_by_hand():
    # threshold 0.5, memory 0:     0    1 (to 0.5)  2 (to 1.5)  0    -1 (to 1)  -3 (to -0.5)
    levels = [np.array([x]) for x in (0.4, 0.6, 1.7, 1.7, 0.9, -0.7)]
    memory = np.zeros(1)
    seen = [int(n[0]) for n in events.pixel_events(levels, memory, threshold=0.5)]
    assert seen == [0, 1, 2, 0, -1, -3] and memory[0] == 0
    negative = [int(n[0]) for n in events.pixel_events([-x for x in levels], memory, threshold=0.5)]
    assert negative == [-n for n in seen]  # contrast reversed: ON and OFF change places


def test_log_intensity_by_hand():
    images = np.zeros((1, 8, 8))
    images[0, 3, 4] = 1
    # The spot lies (3 - 3.5, 4 - 3.5) * 1.5 = (-0.75, 0.75) from the centre, in pixels (6.75, 8.25); moved, at (7, 8).
    level = np.exp(events.log_intensity(images, np.array([0.25, -0.25]))[0]) - events.DARK_LEVEL
    assert np.unravel_index(level.argmax(), level.shape) == (7, 8)
    # A neighbour is 1 / 1.5 image pixels away, so it sees 1 - 1 / 1.5 of the spot.
    np.testing.assert_allclose(level[6:9, 7:10], np.outer([1 / 3, 1, 1 / 3], [1 / 3, 1, 1 / 3]), atol=1e-12)
    assert np.abs(level).sum() == pytest.approx((5 / 3) ** 2)


def test_path_is_a_closed_triangle_that_starts_and_stops_at_its_corners():
    path = events.saccades()
    assert path.shape == (events.NUM_MOMENTS + 1, 2)
    np.testing.assert_array_equal(path[:: events.NUM_MOMENTS // 3], [*events.TRIANGLE, events.TRIANGLE[0]])
    speed = np.linalg.norm(np.diff(path, axis=0), axis=1).reshape(3, -1)
    assert (speed[:, [0, -1]] < 0.1 * speed.max(axis=1, keepdims=True)).all()
    np.testing.assert_allclose(speed.sum(axis=1), [1, np.hypot(4, 0.5), np.hypot(4, 0.5)])


def test_without_motion_there_are_no_events_but_noise():
    images, still = digits.all_digits()[0][:200], np.ones((events.NUM_MOMENTS + 1, 2))
    assert not events.record(images, num_steps=4, path=still, noise_rate=0.0).any()
    noise = events.record(images, num_steps=4, path=still)
    expected = events.NOISE_RATE * events.DURATION * noise[:, 0, 0].size / 4
    for total in noise.sum(axis=(0, 3, 4)).ravel():  # every frame and polarity alike
        assert abs(total - expected) < 4 * np.sqrt(expected)


def test_brightening_gives_on_and_darkening_off():
    bright = np.ones((1, 8, 8))
    right = np.stack([np.zeros(31), np.linspace(0, 2, 31)], axis=1)  # an evenly lit square moves right by two pixels
    on, off = events.record(bright, num_steps=1, path=right, noise_rate=0.0)[0, 0]
    assert on[:, 8:].sum() > 20 and off[:, :8].sum() > 20
    assert not on[:, :8].any() and not off[:, 8:].any()


def test_on_and_off_cancel_when_the_camera_has_come_back():
    # Memory and level are less than a threshold apart before and after, so the memory moved by one threshold at most.
    images = digits.all_digits()[0][:50]
    on, off = events.record(images, num_steps=1, noise_rate=0.0)[:, 0].swapaxes(0, 1)
    assert np.abs(on - off).max() <= 1 and on.sum() > 50 * 100


@pytest.mark.parametrize(("coarse", "fine"), [(3, 6), (1, 4), (2, 10), (7, 14), (4, 120)])
def test_the_stream_does_not_depend_on_the_number_of_frames(coarse, fine):
    images = digits.all_digits()[0][:40]
    few, many = (events.record(images, num_steps=steps) for steps in (coarse, fine))
    together = fine // coarse
    np.testing.assert_array_equal(few, many.reshape(40, coarse, together, *many.shape[2:]).sum(axis=2))


def test_an_image_gives_the_same_events_again_and_in_any_company():
    images = digits.all_digits()[0][:10]
    frames = events.record(images, num_steps=5)
    np.testing.assert_array_equal(frames[:3], events.record(images[:3], num_steps=5))
    first = digits.split_indices()["train"].index(0)
    np.testing.assert_array_equal(load("event-digits", "train", num_steps=5).inputs[first], frames[0])


def test_counts_are_moderate():
    inputs = load("event-digits", "train", num_steps=4).inputs
    assert 1 < inputs[inputs > 0].mean() < 3 and inputs.max() < 15
    assert 0.05 < (inputs > 0).float().mean() < 0.4


def test_evidence_arrives_over_time():
    train, test = (load("event-digits", split, num_steps=4) for split in ("train", "test"))

    def accuracy(num_frames):
        seen, unseen = (split.inputs[:, :num_frames].flatten(1).numpy() for split in (train, test))
        classifier = RidgeClassifier(alpha=1000).fit(seen, train.labels.numpy())  # linear, one solve, no iteration
        return classifier.score(unseen, test.labels.numpy())

    first, half, everything = accuracy(1), accuracy(2), accuracy(4)
    assert everything >= 0.93
    assert first <= everything - 0.10
    assert first < half < everything
