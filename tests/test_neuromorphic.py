"""Event data sets from tiny files in the published formats: upright frames, splits, kept frames, bad arguments."""

import io
import re
from collections import Counter

import numpy as np
import pytest
import torch
from event_data import (
    COUNTS,
    MAKERS,
    F,
    bin_bytes,
    cifar10_dvs,
    dvs128_gesture,
    n_caltech101,
    n_mnist,
    number_of,
    pattern,
    polarity_packet,
    write,
)

from snn_probe.data import neuromorphic
from snn_probe.data.neuromorphic import SETS, found, labels, read


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """One folder per data set with its published files, only to be read (frames may be kept there)."""
    folders = {name: tmp_path_factory.mktemp(name) for name in MAKERS}
    for name, make in MAKERS.items():
        make(folders[name])
    return folders


# --- reading ---


@pytest.mark.parametrize("name", SETS)
def test_an_f_stands_upright_and_is_not_mirrored(name, roots):
    frames, y = read(name, "test", num_steps=1, root=roots[name], frame_size=SETS[name].sensor_size)
    assert frames.shape == (COUNTS[name][2], 1, 2, *SETS[name].sensor_size)
    assert (frames.dtype, y.dtype) == (torch.float16, torch.int64)
    for picture, label in zip(frames[:, 0], y.tolist(), strict=True):
        assert [(r, c - label % 20) for r, c in picture[1].nonzero().tolist()] == F
        assert picture.sum((1, 2)).tolist() == [1, len(F)]


@pytest.mark.parametrize("name", SETS)
def test_splits_are_complete_disjoint_and_in_turn_over_the_classes(name, roots):
    seen = Counter()
    for split, count in zip(("train", "validation", "test"), COUNTS[name], strict=True):
        frames, y = read(name, split, num_steps=1, root=roots[name], frame_size=SETS[name].sensor_size)
        assert len(y) == len(frames) == count
        assert torch.equal(y, labels(name, split, roots[name]))
        num_classes = SETS[name].num_classes
        assert y.unique().tolist() == list(range(num_classes))
        assert y[:num_classes].tolist() == list(range(num_classes))
        part = "test" if split == "test" else "train"
        off = frames[:, 0, 0].numpy()
        seen.update((part, label, number_of(picture)) for label, picture in zip(y.tolist(), off, strict=True))
    assert max(seen.values()) == 1  # no recording twice
    assert len(seen) == sum(COUNTS[name])


def test_cifar10_dvs_tests_on_the_last_tenth_by_number_not_by_name(roots):
    frames, y = read("cifar10-dvs", "test", num_steps=1, root=roots["cifar10-dvs"], frame_size=128)
    numbers = [number_of(picture) for picture in frames[:, 0, 0].numpy()]
    assert numbers == [18] * 10 + [19] * 10  # by name the last two are cifar10_..._8 and 9
    assert y.tolist() == [*range(10)] * 2


@pytest.mark.parametrize("size", [1, 2, 5, 10, 31, 47, 100, 800, 1000])
def test_nine_tenths_are_rounded_as_in_spikingjelly(size, tmp_path):
    from spikingjelly.datasets.utils import _split_class_indices

    n_caltech101(tmp_path, each=1)
    for number in range(2, size + 1):
        write(tmp_path / "Caltech101/anchor" / f"image_{number:04}.bin", b"")
    counts = Counter(int(y) for split in ("train", "validation") for y in labels("n-caltech101", split, tmp_path))
    (theirs, _) = _split_class_indices([list(range(size))], 0.9, False)
    assert counts[SETS["n-caltech101"].classes.index("anchor")] == min(len(theirs), size - 1)


def test_gestures_are_cut_out_by_time(roots):
    """The event at the end time of each gesture, (99, 99), belongs to none; nor do frames and invalid events."""
    frames, _ = read("dvs128-gesture", "train", num_steps=3, root=roots["dvs128-gesture"])
    assert frames.shape == (25, 3, 2, 128, 128)
    assert frames[..., 99, 99].sum() == 0
    assert frames.sum((1, 2, 3, 4)).unique().tolist() == [len(F) + 1]
    assert frames.sum((2, 3, 4)).unique(dim=0).tolist() == [[3, 3, 3]]


@pytest.mark.parametrize("name, size", [("cifar10-dvs", (48, 48)), ("n-caltech101", (48, 48)), ("n-mnist", (34, 34))])
def test_default_frames_are_those_of_the_papers(name, size, roots):
    frames, _ = read(name, "test", num_steps=4, root=roots[name])
    assert frames.shape[1:] == (4, 2, *size)
    height, width = SETS[name].sensor_size
    per_event = size[0] * size[1] / (height * width)
    torch.testing.assert_close(
        frames.float().sum((2, 3, 4)) / per_event,
        torch.tensor([[2.0, 2, 2, 3]]).expand(len(frames), 4),
        rtol=1e-3,
        atol=0,
    )


def test_a_rectangular_frame_keeps_rows_and_columns_apart(roots):
    frames, _ = read("n-caltech101", "test", num_steps=1, root=roots["n-caltech101"], frame_size=(180, 48))
    rows = frames[0, 0, 1].sum(1).nonzero().flatten().tolist()  # 5 columns became one, rows are as they were
    assert rows == [2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    "name, make",
    [
        ("cifar10-dvs", lambda root: cifar10_dvs(root, "CIFAR10DVS/events_np", ".npz")),
        ("n-caltech101", lambda root: n_caltech101(root, "NCaltech101/events_np", ".npz")),
        ("n-mnist", lambda root: n_mnist(root, "NMNIST/events_np", ".npz", ("train", "test"))),
    ],
)
def test_files_that_spikingjelly_made_give_the_same_frames(name, make, roots, tmp_path):
    make(tmp_path)
    for split in ("train", "validation", "test"):
        ours, theirs = (read(name, split, num_steps=4, root=root) for root in (roots[name], tmp_path))
        assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])
    assert found(name, tmp_path)["form"] == "SpikingJelly's events_np"


def test_gestures_that_spikingjelly_cut_give_the_same_frames(tmp_path):
    """By SpikingJelly's own conversion, of files without invalid events, which it does not leave out."""
    from spikingjelly.datasets.dvs128_gesture import DVS128Gesture

    dvs128_gesture(tmp_path, "DVS128Gesture/extract/DvsGesture")
    home = tmp_path / "DVS128Gesture"
    for path in (home / "extract/DvsGesture").glob("*.aedat"):
        path.write_bytes(path.read_bytes().replace(polarity_packet([(0, 0, 1, 10_001)], valid=0), b""))
    ours = {
        split: read("dvs128-gesture", split, num_steps=2, root=tmp_path) for split in ("train", "validation", "test")
    }
    (home / "events_np").mkdir()
    DVS128Gesture.create_raw_from_extracted(home / "extract", home / "events_np")
    (home / "extract").rename(tmp_path / "elsewhere")
    for split, (frames, y) in ours.items():
        theirs = read("dvs128-gesture", split, num_steps=2, root=tmp_path)
        assert torch.equal(frames, theirs[0]) and torch.equal(y, theirs[1])


@pytest.mark.parametrize("base", ["", "NMNIST", "n-mnist", "N-MNIST/extract"])
def test_folders_as_people_have_them(base, tmp_path):
    n_mnist(tmp_path, base)
    assert len(labels("n-mnist", "test", tmp_path)) == 40


def test_files_that_are_no_recordings_are_passed_over(tmp_path):
    n_mnist(tmp_path)
    write(tmp_path / "NMNIST/Train/3/.hidden.bin", b"1234")
    write(tmp_path / "NMNIST/Train/3/ReadMe.txt", b"text")
    write(tmp_path / "NMNIST/Train/readme/00099.bin", b"text")
    assert read("n-mnist", "train", num_steps=2, root=tmp_path)[0].shape[0] == 30


# --- kept frames ---


def test_frames_are_kept_and_found_again(tmp_path, monkeypatch):
    n_mnist(tmp_path)
    first, _ = read("n-mnist", "test", num_steps=3, root=tmp_path)
    first = first.clone()
    (kept,) = (tmp_path / "NMNIST/snn_probe-frames").iterdir()
    assert kept.name.startswith("n-mnist-test-T3-34x34-")
    monkeypatch.setattr(neuromorphic, "integrate", lambda *_, **__: pytest.fail("integrated again"))
    again, _ = read("n-mnist", "test", num_steps=3, root=tmp_path)
    assert torch.equal(first, again)
    again += 1  # in this process only
    assert torch.equal(first, read("n-mnist", "test", num_steps=3, root=tmp_path)[0])


@pytest.mark.parametrize("change", ["steps", "size", "version", "content"])
def test_frames_of_something_else_are_not_taken(change, tmp_path, monkeypatch):
    n_mnist(tmp_path)
    read("n-mnist", "test", num_steps=3, root=tmp_path)
    settings = {"num_steps": 3, "frame_size": 34}
    if change == "steps":
        settings["num_steps"] = 2
    elif change == "size":
        settings["frame_size"] = 17
    elif change == "version":
        monkeypatch.setattr(neuromorphic, "CACHE_VERSION", 0)
    else:
        path = tmp_path / "NMNIST/Test/3/00009.bin"
        path.write_bytes(path.read_bytes() + bin_bytes([(33, 33, 1, 1000)] * 5))
    frames, _ = read("n-mnist", "test", root=tmp_path, **settings)
    assert len(list((tmp_path / "NMNIST/snn_probe-frames").iterdir())) == 2
    assert frames.shape[1] == settings["num_steps"] and frames.shape[-1] == settings["frame_size"]
    assert (frames[..., 33, 33].sum() == 5) if change == "content" else True


def test_an_added_recording_makes_new_frames(tmp_path):
    n_mnist(tmp_path)
    read("n-mnist", "test", num_steps=3, root=tmp_path)
    write(tmp_path / "NMNIST/Test/3/00041.bin", bin_bytes(pattern(3, 41)))
    assert len(read("n-mnist", "test", num_steps=3, root=tmp_path)[0]) == 41


def another_array(_):
    file = io.BytesIO()
    np.save(file, np.zeros((40, 2, 2, 34, 34), "<f2"))
    return file.getvalue()


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-10], lambda b: b"", lambda b: b"\x80\x04N." * 9, lambda b: b[:6] * 30, another_array]
)
def test_a_damaged_file_of_frames_is_made_again(damage, tmp_path):
    n_mnist(tmp_path)
    first, _ = read("n-mnist", "test", num_steps=3, root=tmp_path)
    first = first.clone()
    (kept,) = (tmp_path / "NMNIST/snn_probe-frames").iterdir()
    sound = kept.read_bytes()
    kept.write_bytes(damage(sound))
    assert torch.equal(read("n-mnist", "test", num_steps=3, root=tmp_path)[0], first)
    assert kept.read_bytes() == sound


def test_without_a_place_to_keep_them_frames_are_made_in_memory(tmp_path):
    n_mnist(tmp_path)
    expected = read("n-mnist", "test", num_steps=3, root=tmp_path)[0].clone()
    other = tmp_path / "other"
    n_mnist(other)
    write(other / "NMNIST/snn_probe-frames", b"a file where the folder should be")
    assert torch.equal(read("n-mnist", "test", num_steps=3, root=other)[0], expected)


def test_without_room_on_the_disk_frames_are_made_in_memory(tmp_path, monkeypatch):
    n_mnist(tmp_path)
    full = type("usage", (), {"free": 1000})
    monkeypatch.setattr("snn_probe.data.frame_cache.shutil.disk_usage", lambda _: full)
    assert len(read("n-mnist", "test", num_steps=3, root=tmp_path)[0]) == 40
    assert not (tmp_path / "NMNIST/snn_probe-frames").exists()


# --- bad arguments ---


@pytest.mark.parametrize(
    "change, said",
    [
        ({"name": "n-fish"}, f"name is 'n-fish', which is no event data set here; choose one of {', '.join(SETS)}."),
        ({"split": "all"}, "split is 'all', which n-mnist does not have; choose one of train, validation, test."),
        ({"num_steps": 0}, "num_steps is 0, but n-mnist is cut into frames; give a whole number from 1 to 1000."),
        ({"num_steps": 2.0}, "num_steps is 2.0, but n-mnist is cut into frames; give a whole number from 1 to 1000."),
        ({"num_steps": 1001}, "num_steps is 1001, but n-mnist is cut into frames; give a whole number from 1 to 1000."),
        ({"frame_size": 0}, "frame_size is 0, but frames have rows and columns; give one or two whole numbers from 1 "
         "to 1024."),
        ({"frame_size": 4.5}, "frame_size is 4.5, but frames have rows and columns; give one or two whole numbers from "
         "1 to 1024."),
        ({"frame_size": (4, 5, 6)}, "frame_size is (4, 5, 6), but frames have rows and columns; give one or two whole "
         "numbers from 1 to 1024."),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused(change, said, roots):
    arguments = {"name": "n-mnist", "split": "test", "num_steps": 4, "root": roots["n-mnist"]} | change
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        read(**arguments)
