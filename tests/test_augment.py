"""Augmentation against slow loops over examples and pixels, its chances, and that only seed and example decide."""

import re

import numpy as np
import pytest
import torch

from snn_probe.data import Split, load
from snn_probe.data.augment import BITS, CropFlipCutout, RollFlip, Shift, chosen, draws
from snn_probe.data.examples import Normalization
from snn_probe.data.sources import event_augmentation, small_image_augmentation


def sentence(text):
    return "^" + re.escape(text) + "$"


PLAIN = Normalization((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


# --- the table ---


def test_a_row_of_the_table_depends_on_seed_and_number_alone():
    state = torch.get_rng_state()
    table = draws(1000, 5, 7)
    assert torch.equal(draws(10, 5, 7), table[:10]) and not torch.equal(draws(10, 5, 8), table[:10])
    assert not torch.equal(draws(10, 5, 7 + 2**32), table[:10])  # as it would be with torch's generator
    assert torch.equal(torch.get_rng_state(), state)
    assert table.min() >= 0 and table.max() < 2**BITS


def test_chosen_numbers_are_uniform_and_reach_both_ends():
    assert chosen(torch.tensor([0, 2**BITS - 1]), 9).tolist() == [0, 8]
    counts = torch.bincount(chosen(draws(9000, 1, 0)[:, 0], 9), minlength=9)
    assert (counts - 1000).abs().max() < 4 * (1000 * 8 / 9) ** 0.5


# --- each change against a loop ---


def slow_crop_flip_cutout(image, rows, padding, cut):
    """One image, one row of the table: pad, crop, mirror, cut, pixel by pixel."""
    down, right, mirror, row, column = (
        int(u * n // 2**BITS)
        for u, n in zip(rows.tolist(), (2 * padding + 1, 2 * padding + 1, 2, *image.shape[1:]), strict=True)
    )
    channels, height, width = image.shape
    padded = np.zeros((channels, height + 2 * padding, width + 2 * padding), dtype=image.dtype)
    padded[:, padding : padding + height, padding : padding + width] = image
    cropped = padded[:, down : down + height, right : right + width].copy()
    if mirror:
        cropped = cropped[:, :, ::-1].copy()
    top, left = row - cut // 2, column - cut // 2
    cropped[:, max(top, 0) : max(top + cut, 0), max(left, 0) : max(left + cut, 0)] = 0
    return cropped


@pytest.mark.parametrize(("padding", "cut"), [(0, 0), (4, 0), (0, 5), (2, 6), (4, 16)])
def test_crop_flip_cutout_is_a_loop_over_examples(padding, cut):
    images = torch.randint(1, 256, (40, 3, 12, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    table = draws(40, 5, 1)
    found = CropFlipCutout(padding, cut)(images, table)
    expected = [slow_crop_flip_cutout(i, r, padding, cut) for i, r in zip(images.numpy(), table, strict=True)]
    assert found.dtype == torch.uint8 and np.array_equal(found.numpy(), np.stack(expected))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("flip", [False, True])
def test_roll_flip_is_torch_roll_of_every_frame_alike(dtype, flip):
    frames = torch.rand(30, 3, 2, 7, 9, generator=torch.Generator().manual_seed(0)).to(dtype)
    table = draws(30, 3, 2)
    found = RollFlip(5, flip)(frames, table)
    for example, row, was in zip(found, table.tolist(), frames, strict=True):
        down, right = (u * 11 // 2**BITS - 5 for u in row[:2])
        mirrored = was.flip(-1) if flip and row[2] * 2 // 2**BITS else was
        assert torch.equal(example, torch.roll(mirrored, (down, right), (-2, -1)))


def test_half_are_mirrored_and_a_mirror_is_asked_for_by_one_set_alone():
    frames = torch.arange(9.0).expand(2000, 1, 2, 3, 9)
    falling = (RollFlip(0, True)(frames, draws(2000, 3, 0))[:, 0, 0, 0, 0] == 8).sum()
    assert abs(int(falling) - 1000) < 4 * 500**0.5
    assert torch.equal(RollFlip(0, False)(frames, draws(2000, 3, 0)), frames)
    sets = ("cifar10-dvs", "dvs128-gesture", "n-mnist")
    assert [event_augmentation(name, 48) for name in sets] == [
        RollFlip(5, True),
        RollFlip(5, False),
        RollFlip(5, False),
    ]
    assert event_augmentation("n-caltech101", 48) is None and event_augmentation("n-mnist", 34).max_roll == 4
    assert small_image_augmentation(32) == CropFlipCutout(padding=4, cut=16)
    assert small_image_augmentation(16) == CropFlipCutout(padding=2, cut=8)


def test_shift_moves_by_numbers_from_the_table_and_lets_zeros_in():
    inputs = torch.rand(50, 1, 8, 8)
    table = draws(50, 2, 3)
    shifts = table * 3 // 2**BITS - 1
    found = Shift(1)(inputs, table)
    for n, (down, right) in enumerate(shifts.tolist()):
        rolled = torch.roll(inputs[n], (down, right), (-2, -1))
        inside = torch.zeros(8, 8)
        inside[max(down, 0) : 8 + min(down, 0), max(right, 0) : 8 + min(right, 0)] = 1
        assert torch.equal(found[n], rolled * inside)


# --- splits that augment ---


def splits():
    images = torch.randint(0, 256, (60, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(60) % 10
    frames = torch.rand(60, 4, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    return {
        "images": Split(images, labels, PLAIN, CropFlipCutout(1, 4)),
        "frames": Split(frames, labels, None, RollFlip(2, True)),
        "half": Split(frames.half(), labels, None, RollFlip(2, True)),
        "digits": load("digits", "test", num_examples=60),
        "event-digits": load("event-digits", "test", num_steps=4, num_examples=60),
    }


@pytest.mark.parametrize("kind", ["images", "frames", "half", "digits", "event-digits"])
def test_what_happens_to_an_example_depends_on_seed_and_example_alone(kind):
    split = splits()[kind]

    def fed(order, seed=5):
        found = torch.empty(len(split), *split.inputs.shape[1:])
        labels = torch.full((len(split),), -1)
        state = torch.get_rng_state()
        for indices, (inputs, of) in zip(order, split.feed(order, augment_seed=seed), strict=True):
            found[indices], labels[indices] = inputs, of
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(labels, split.labels) and inputs.dtype == torch.float32
        return found

    whole = fed([torch.arange(60)])
    shuffled = torch.randperm(60, generator=torch.Generator().manual_seed(2))
    assert torch.equal(fed(shuffled.split(7)), whole)
    assert torch.equal(fed(list(reversed(shuffled.split(1)))), whole)
    assert torch.equal(fed([torch.arange(60)]), whole)  # and not on what was fed before
    assert not torch.equal(fed([torch.arange(60)], seed=6), whole)
    # As two processes would share it out, each with its part of every batch.
    halves = [next(split.feed([part], augment_seed=5))[0] for part in (shuffled[::2], shuffled[1::2])]
    assert torch.equal(halves[0], whole[shuffled[::2]]) and torch.equal(halves[1], whole[shuffled[1::2]])
    plain = next(split.feed([shuffled]))[0]
    assert torch.equal(plain, split.take(shuffled)[0]) and not torch.equal(plain, whole[shuffled])


def test_a_shorter_split_is_augmented_as_the_beginning_of_the_whole():
    whole, some = (load("digits", "test", num_examples=n) for n in (100, 20))
    numbers = torch.arange(20)
    (long, _), (short, _) = (next(split.feed([numbers], augment_seed=1)) for split in (whole, some))
    assert torch.equal(long, short)


def test_what_is_cut_is_black_before_normalisation():
    white = Split(
        torch.full((40, 3, 8, 8), 255, dtype=torch.uint8), torch.zeros(40).long(), PLAIN, CropFlipCutout(0, 4)
    )
    inputs, _ = next(white.feed([torch.arange(40)], augment_seed=0))
    mean, std = (torch.tensor(values) for values in (PLAIN.mean, PLAIN.std))
    for channel in range(3):
        values = inputs[:, channel].unique()
        torch.testing.assert_close(values, torch.stack([-mean / std, (1 - mean) / std])[:, channel])
    black = (inputs[:, 0] < 0).sum(dim=(1, 2))
    assert black.max() == 16 and black.min() >= 4  # a corner of the square at least, where its centre is in a corner


def test_nothing_that_is_stored_changes():
    for split in splits().values():
        before = split.stored.clone()
        for inputs, _ in split.feed([torch.arange(60)], augment_seed=1):
            inputs.fill_(9)
        split.take(torch.arange(3))[0].fill_(9)
        assert torch.equal(split.stored, before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("kind", ["images", "frames", "half", "digits"])
def test_the_device_changes_nothing(kind):
    split, order = splits()[kind], torch.randperm(60).split(16)
    for ours, theirs in zip(
        split.feed(order, augment_seed=3), split.feed(order, augment_seed=3, device="cuda"), strict=True
    ):
        assert theirs[0].is_cuda and torch.equal(ours[1], theirs[1].cpu())
        torch.testing.assert_close(ours[0], theirs[0].cpu(), rtol=1e-6, atol=1e-6)
