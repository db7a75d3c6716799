"""Tiny event data sets in the published formats, written byte by byte, with nothing taken from the package's readers.

The pattern is an F, which no turn and no mirror maps to itself.
"""

import csv
import io
import re
import struct

import numpy as np
import pytest

from snn_probe.data.neuromorphic import SETS, read

F = [(2, 3), (2, 4), (2, 5), (3, 3), (4, 3), (4, 4), (5, 3), (6, 3)]  # (row, column), row 0 is the top
GET = {
    "cifar10-dvs": "get airplane.zip to truck.zip from https://figshare.com/articles/dataset/CIFAR10-DVS_New/4724671",
    "n-caltech101": "get Caltech101.zip from https://www.garrickorchard.com/datasets/n-caltech101",
    "dvs128-gesture": "get DvsGesture.tar.gz from https://ibm.ent.box.com/s/3hiq58ww1pbbjrinh367ykfdf60xsfm8/folder/50167556794",
    "n-mnist": "get Train.zip and Test.zip from https://www.garrickorchard.com/datasets/n-mnist",
}


# --- the published formats, as bytes ---


def bin_bytes(events):
    """N-MNIST, N-Caltech101: 40 bits, x then y, polarity as the top bit above 23 bits of time."""
    return b"".join(bytes([x, y, on << 7 | t >> 16, t >> 8 & 255, t & 255]) for y, x, on, t in events)


def aedat2_bytes(events, header=b"#!AER-DAT2.0\r\n# This is a raw AE data file - do not edit\r\n"):
    """CIFAR10-DVS: the DVS128 lay on its side, and bit 0 is 1 for OFF."""
    address = ((127 - x) << 8 | (127 - y) << 1 | (1 - on) for y, x, on, t in events)
    return header + b"".join(struct.pack(">II", a, e[3]) for a, e in zip(address, events, strict=True))


def packet(kind, payload, size, overflows=0, number=None):
    capacity = len(payload) // size
    number = capacity if number is None else number
    return struct.pack("<HHIIIIII", kind, 1, size, 4, overflows, capacity, number, number) + payload


def polarity_packet(events, overflows=0, valid=1):
    data = (struct.pack("<Ii", x << 17 | y << 2 | on << 1 | valid, t) for y, x, on, t in events)
    return packet(1, b"".join(data), 8, overflows)


AEDAT3_HEADER = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#!END-HEADER\r\n"


def npz_bytes(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def npz_of(events):
    y, x, on, t = np.array(events).T
    return npz_bytes(t=t, x=x, y=y, p=on)


WRITERS = {".bin": bin_bytes, ".aedat": aedat2_bytes, ".npz": npz_of}


def pattern(label, number):
    """An F of ON events, shifted by the label, then one OFF event in a place that tells the number."""
    events = [(y, x + label % 20, 1, 10 * i) for i, (y, x) in enumerate(F)]
    return [*events, (20 + number // 20, number % 20, 0, 999)]


# --- whole data sets ---


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def cifar10_dvs(root, base="CIFAR10DVS/extract", suffix=".aedat", each=20):
    for label, name in enumerate(SETS["cifar10-dvs"].classes):
        for number in range(each):
            content = WRITERS[suffix](pattern(label, number))
            write(root / base / name / f"cifar10_{name}_{number}{suffix}", content)


def n_caltech101(root, base="Caltech101", suffix=".bin", each=3):
    for label, name in enumerate(SETS["n-caltech101"].classes):
        for number in range(1, each + 1):
            write(root / base / name / f"image_{number:04}{suffix}", WRITERS[suffix](pattern(label, number)))


def n_mnist(root, base="NMNIST", suffix=".bin", parts=("Train", "Test"), each=4):
    for part in parts:
        for number in range(1, 10 * each + 1):
            digit = number * 7 % 10
            write(root / base / part / str(digit) / f"{number:05}{suffix}", WRITERS[suffix](pattern(digit, number)))


def gesture_events(label, k, begin):
    return [(y, x, on, begin + t) for y, x, on, t in pattern(label, k)]


def dvs128_gesture(root, base="DvsGesture", users=((1, "train"), (10, "train"), (2, "train"), (24, "test"))):
    """Each trial has gesture 11 twice, as some real ones have; between gestures there is a disturbance."""
    for user, _ in users:
        stem, stream, rows = f"user{user:02}_led", [], [["class", "startTime_usec", "endTime_usec"]]
        for k, label in enumerate([*range(11), 10]):
            begin = 10_000 * (k + 1)
            rows.append([label + 1, begin, begin + 2000])
            stream += [*gesture_events(label, user + (k == 11) * 30, begin), (99, 99, 1, begin + 2000)]
        middle = len(stream) // 2
        content = AEDAT3_HEADER + polarity_packet(stream[:middle]) + packet(2, b"frame" * 3, 15)
        content += polarity_packet([(0, 0, 1, 10_001)], valid=0) + polarity_packet(stream[middle:])
        write(root / base / f"{stem}.aedat", content)
        table = io.StringIO()
        csv.writer(table).writerows(rows)
        write(root / base / f"{stem}_labels.csv", table.getvalue().encode())
    for part in ("train", "test"):
        names = "".join(f"user{user:02}_led.aedat\n" for user, p in users if p == part)
        write(root / base / f"trials_to_{part}.txt", names.encode() + b"\n")


MAKERS = {
    "cifar10-dvs": cifar10_dvs,
    "n-caltech101": n_caltech101,
    "n-mnist": n_mnist,
    "dvs128-gesture": dvs128_gesture,
}
COUNTS = {  # train, validation, test recordings of what the makers write
    "cifar10-dvs": (160, 20, 20),
    "n-caltech101": (101, 101, 101),
    "n-mnist": (30, 10, 40),
    "dvs128-gesture": (20 + 5, 10 + 1, 12),
}


def number_of(frame_off):
    """The number that `pattern` wrote into the OFF channel."""
    row, column = np.argwhere(frame_off)[0]
    return (row - 20) * 20 + column


def refused(name, root, said, error=FileNotFoundError, split="test", **settings):
    with pytest.raises(error, match=f"^{re.escape(said)}$"):
        read(name, split, num_steps=4, root=root, **settings)
