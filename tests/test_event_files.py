"""Readers of event files: SpikingJelly's own as a second opinion where they are right, and what a corrupt file says."""

import dataclasses
import io
import re
import struct
import zipfile

import numpy as np
import pytest
from event_data import (
    AEDAT3_HEADER,
    GET,
    F,
    aedat2_bytes,
    bin_bytes,
    cifar10_dvs,
    dvs128_gesture,
    n_mnist,
    npz_bytes,
    npz_of,
    packet,
    pattern,
    polarity_packet,
    refused,
)

from snn_probe.data import event_files
from snn_probe.data.neuromorphic import SETS, read


def random_events(number, height, width, seed=0):
    rng = np.random.default_rng(seed)
    times = np.sort(rng.integers(0, 2**23, number))
    return list(zip(*(a.tolist() for a in (rng.integers(0, height, number), rng.integers(0, width, number),
                                           rng.integers(0, 2, number), times)), strict=True))  # fmt: skip


def same(ours, theirs):
    assert np.array_equal(ours.x, theirs["x"]) and np.array_equal(ours.y, theirs["y"])
    assert np.array_equal(ours.on, theirs["p"] == 1)


def test_bin_files_read_as_spikingjelly_reads_them_but_for_time_markers(tmp_path):
    from spikingjelly.datasets.utils import load_ATIS_bin

    events = random_events(2000, 180, 240)
    path = tmp_path / "a.bin"
    path.write_bytes(bin_bytes(events))
    same(event_files.read_bin(path), load_ATIS_bin(path))
    path.write_bytes(bin_bytes([*events, (240, 0, 0, 5)]))  # row 240: no pixel, the clock went round
    assert len(event_files.read_bin(path).x) == 2000
    assert len(load_ATIS_bin(path)["x"]) == 2001


def test_aedat2_files_read_as_spikingjelly_reads_them_but_for_special_events(tmp_path):
    from spikingjelly.datasets.cifar10_dvs import _load_origin_data

    path = tmp_path / "a.aedat"
    content = aedat2_bytes(random_events(2000, 128, 128))
    path.write_bytes(content)
    same(event_files.read_aedat2(path), _load_origin_data(path))
    path.write_bytes(content + struct.pack(">II", 0x8000, 5))
    assert len(event_files.read_aedat2(path).x) == 2000
    assert len(_load_origin_data(path)["x"]) == 2001


def test_aedat3_files_read_as_spikingjelly_reads_them_but_for_invalid_events(tmp_path):
    from spikingjelly.datasets.utils import load_aedat_v3

    path = tmp_path / "a.aedat"
    events = random_events(2000, 128, 128)
    content = AEDAT3_HEADER + polarity_packet(events[:700]) + packet(0, b"special!" * 3, 8)
    content += polarity_packet(events[700:], overflows=1)
    path.write_bytes(content)
    ours, theirs = event_files.read_aedat3(path), load_aedat_v3(path)
    same(ours, theirs)
    assert np.array_equal(ours.time, theirs["t"])
    assert ours.time[-1] == 2**31 + events[-1][3]
    path.write_bytes(content + polarity_packet(events[:5], valid=0))
    assert len(event_files.read_aedat3(path).x) == 2000
    assert len(load_aedat_v3(path)["x"]) == 2005


# --- corrupt files ---


def corrupt(*cases):
    return pytest.mark.parametrize("content, fault", cases, ids=[fault[:40] for _, fault in cases])


N_MNIST_AGAIN = f"{GET['n-mnist']} and unpack it again."


def npy_member(header_shape, payload=b"", dtype="<i8"):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": header_shape})
    return file.getvalue() + payload


def zipped(**members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


@corrupt(
    (b"", "has 0 bytes, but a recording has between 1 and 536870912"),
    (bin_bytes(pattern(3, 1))[:-2], "is cut off: it has 43 bytes, but every event has 5"),
    (bin_bytes([(240, 0, 0, 0)]), "holds no event"),
    (bin_bytes([(2, 3, 1, 0), (5, 34, 1, 1)]),
     "has an event (number 1) at column 34, row 5, but the sensor has 34 columns and 34 rows"),
    (bin_bytes([(2, 3, 1, 0)]) * 262_017, "has a pixel with 65505 events in one frame, more than any camera sends"),
)  # fmt: skip
def test_a_corrupt_bin_file_is_named(content, fault, tmp_path):
    n_mnist(tmp_path)
    path = tmp_path / "NMNIST/Test/3/00009.bin"
    path.write_bytes(content)
    refused("n-mnist", tmp_path, f"{path} {fault}; {N_MNIST_AGAIN}", ValueError)
    assert not any((tmp_path / "NMNIST/snn_probe-frames").glob("*"))  # nothing half made is kept


@corrupt(
    (npz_bytes(x=[1], y=[2, 3], p=[1], t=[0]), "has 1 columns, 2 rows and 1 polarities, which must be equally many"),
    (npz_bytes(x=[1], y=[2], p=[7], t=[0]), "has polarities from 7 to 7, but 0 or 1 is what there can be"),
    (npz_bytes(x=[1.5], y=[2], p=[1], t=[0]),
     "has an array x of float64 with shape (1,) in 8 bytes, but one axis of whole numbers is what there can be"),
    (npz_bytes(x=np.array([{}], dtype=object), y=[2], p=[1]), r"has an array x of object with shape (1,) in "),
    (npz_bytes(x=[-1], y=[2], p=[1], t=[0]),
     "has an event (number 0) at column -1, row 2, but the sensor has 34 columns and 34 rows"),
    (npz_bytes(x=[1], y=[2]), "is no sound .npz file (\"There is no item named 'p.npy' in the archive\")"),
    (npz_bytes(x=[1], y=[2], p=[1])[:60], "is no sound .npz file (File is not a zip file)"),
    (zipped(x=npy_member((10**12,), b"12345678"), y=b"", p=b""),
     "has an array x of int64 with shape (1000000000000,) in 8 bytes, but one axis of whole numbers is what there"),
    (zipped(x=bytes(200_000_000), y=b"", p=b""),
     "says that its array x has 200000000 bytes, more than any recording here"),
)  # fmt: skip
def test_a_corrupt_npz_file_is_named(content, fault, tmp_path):
    n_mnist(tmp_path, "NMNIST/events_np", ".npz", ("train", "test"))
    path = tmp_path / "NMNIST/events_np/test/3/00009.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{re.escape(f'{path} {fault}')}.*; {re.escape(N_MNIST_AGAIN)}$"):
        read("n-mnist", "test", num_steps=4, root=tmp_path)


@pytest.mark.parametrize("at", range(0, 560, 7))
def test_any_damaged_byte_of_an_npz_file_gives_events_or_a_sentence(at, tmp_path):
    content = bytearray(npz_of(pattern(3, 9)))
    content[at] ^= 0x55
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    try:
        assert len(event_files.read_npz(path).x) == len(F) + 1
    except ValueError as error:
        assert str(error)


@corrupt(
    (aedat2_bytes(pattern(3, 1))[:-3], "is cut off: 69 bytes follow its header, but every event has 8"),
    (b"<html>not found</html>", "is no AEDAT file: it does not begin with '#'"),
    (b"#!AER-DAT2.0", "is cut off in the middle of its header"),
    (b"#!AER-DAT4.0\r\n", "is in AEDAT 4.0 format, but 2.x is what this data set was published in"),
    (aedat2_bytes([]), "holds no event"),
    (aedat2_bytes([]) + struct.pack(">II", 1 << 16, 0),
     "has an event with the address 0x10000, which a DVS128 camera does not have"),
)  # fmt: skip
def test_a_corrupt_aedat2_file_is_named(content, fault, tmp_path):
    cifar10_dvs(tmp_path, each=2)
    path = tmp_path / "CIFAR10DVS/extract/cat/cifar10_cat_1.aedat"
    path.write_bytes(content)
    said = f"{path} {fault}; {GET['cifar10-dvs']} and unpack it again."
    refused("cifar10-dvs", tmp_path, said, ValueError)


GOOD = polarity_packet([(2, 3, 1, 10_001)])
HUGE = struct.pack("<HHIIIIII", 1, 1, 8, 4, 0, 2**31, 2**31, 2**31)


@corrupt(
    (AEDAT3_HEADER + GOOD[:-1], "is cut off: a packet of 8 bytes begins at byte 89, but 7 are left"),
    (AEDAT3_HEADER + GOOD + GOOD[:20], "is cut off: the packet at byte 97 has no room for its header"),
    (AEDAT3_HEADER + HUGE, "is cut off: a packet of 17179869184 bytes begins at byte 89, but 0 are left"),
    (AEDAT3_HEADER + packet(1, b"12345678", 4), "has a packet at byte 89 with 2 of 2 events of 4 bytes, not 8"),
    (AEDAT3_HEADER + packet(1, b"12345678", 8, number=9),
     "has a packet at byte 89 with 9 of 1 events of 8 bytes, not 8"),
    (b"#!AER-DAT2.0\r\n", "is in AEDAT 2.0 format, but 3.x is what this data set was published in"),
    (AEDAT3_HEADER + GOOD, ", from 20000 to 22000 microseconds, holds no event"),
)  # fmt: skip
def test_a_corrupt_aedat3_file_is_named(content, fault, tmp_path):
    dvs128_gesture(tmp_path)
    path = tmp_path / "DvsGesture/user24_led.aedat"
    path.write_bytes(content)
    gap = "" if fault.startswith(",") else " "
    said = f"{path}{gap}{fault}; {GET['dvs128-gesture']} and unpack it again."
    refused("dvs128-gesture", tmp_path, said, ValueError)


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    n_mnist(tmp_path)
    path = tmp_path / "NMNIST/Test/3/00009.bin"
    layout = dataclasses.replace(SETS["n-mnist"].layouts[0], reader=lambda p: (_ for _ in ()).throw(PermissionError(13, "Permission denied", str(p))))  # fmt: skip
    monkeypatch.setitem(SETS, "n-mnist", dataclasses.replace(SETS["n-mnist"], layouts=(layout,)))
    with pytest.raises(ValueError, match=rf"^{tmp_path}/NMNIST/Test/.*\.bin cannot be read \(Permission denied\); get"):
        read("n-mnist", "test", num_steps=4, root=tmp_path)
    assert path.exists()
