"""Reading the files of event cameras: N-MNIST's and N-Caltech101's .bin, .aedat 2.0 and 3.x, SpikingJelly's .npz.

Every reader takes a path and gives all events of the file in the order in which the sensor sent them. Nothing that a
file says about its own size is believed: memory is bounded by `MAX_BYTES` and `MAX_EVENTS`, and a file that ends too
early is an error, never a shorter recording.

Raises ValueError whose text says what is wrong with the file and continues a sentence that begins with its path.

SpikingJelly's own readers give the same events for sound files (tests compare them). They are not used because they
take a cut-off file for a shorter one (`load_ATIS_bin`, `load_aedat_v3`), read events that the sensor marked as invalid
(`load_aedat_v3`) or time markers and special events as if they were pixels (`load_ATIS_bin`, CIFAR10DVS), and
`load_aedat_v3` decodes one event at a time in Python.
"""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from snn_probe.machine.files import shortened

from .arrays import FAULTS, read_header

MAX_BYTES = 2**29  # of one raw file: four times the largest of these data sets, a trial of DVS128 Gesture
MAX_EVENTS = 2**24  # of one .npz file: a DVS128 sends some 1e6 events a second at most, a recording lasts seconds

_BIN_EVENT = 5  # bytes
_TIME_MARKER = 240  # in the row of a .bin event: the clock went round, no pixel
_AEDAT2_EVENT = 8
_DVS128_PIXEL = 0x7FFF  # 1 bit polarity, 7 bits column, 7 bits row; the bit above marks special events
_PACKET_HEADER = struct.Struct("<HHIIIIII")  # type, source, bytes per event, time offset, overflows, capacity, number,
_POLARITY_PACKET = 1  # ... valid; the type of a packet whose events come from pixels


class Events(NamedTuple):
    """One entry per event, shape (events,): column `x` from the left, row `y` from the top, `on` (bool: brighter).

    `time` in microseconds (int64), or None where nobody needs it.
    """

    x: np.ndarray
    y: np.ndarray
    on: np.ndarray
    time: np.ndarray | None = None


def read_bin(path: Path) -> Events:
    """Events of an N-MNIST or N-Caltech101 file: 40 bits each, no header.

    Byte 0 is the column, byte 1 the row, the top bit of byte 2 the polarity (1 is ON), the other 23 bits the time.
    Rows 240 are time markers, as in its author's reader (Orchard, eventvision.py), and left out.
    """
    data = _contents(path)
    if len(data) % _BIN_EVENT:
        raise ValueError(f"is cut off: it has {len(data)} bytes, but every event has {_BIN_EVENT}")
    events = np.frombuffer(data, np.uint8).reshape(-1, _BIN_EVENT)
    events = events[events[:, 1] != _TIME_MARKER]
    return Events(events[:, 0], events[:, 1], events[:, 2] >= 128)


def read_aedat2(path: Path) -> Events:
    """Events of a CIFAR10-DVS file: AEDAT 2.0 of a DVS128 camera that lay on its side.

    After header lines that begin with '#', pairs of big-endian 32-bit numbers, address and time. Bit 0 of the address
    is 1 for OFF, bits 1-7 and 8-14 are the pixel. The upright picture has column 127 - (bits 8-14) and row 127 - (bits
    1-7), which is how SpikingJelly's CIFAR10DVS has it; the other way round it lies on its side. Addresses with bit 15
    are special events without a pixel and left out.
    """
    data = _contents(path)
    start = _end_of_header(data, version=b"2")
    if (len(data) - start) % _AEDAT2_EVENT:
        raise ValueError(
            f"is cut off: {len(data) - start} bytes follow its header, but every event has {_AEDAT2_EVENT}"
        )
    address = np.frombuffer(data, ">u4", offset=start)[::2]
    if np.any(address > 2 * _DVS128_PIXEL + 1):
        raise ValueError(f"has an event with the address {address.max():#x}, which a DVS128 camera does not have")
    address = address[address <= _DVS128_PIXEL].astype(np.uint16)
    return Events(127 - (address >> 8), 127 - (address >> 1 & 127), (address & 1) == 0)


def read_aedat3(path: Path) -> Events:
    """Events with times of a DVS128 Gesture file: the valid polarity events of an AEDAT 3.x file, others passed over.

    After the header, packets: 28 bytes that say type, bytes per event, how often the 31-bit clock went round, capacity
    and number of events; then `capacity` events. A polarity event is two little-endian 32-bit numbers: bit 0 valid,
    bit 1 polarity (1 is ON), bits 2-16 row, bits 17-31 column; and the time. Format: inivation.com, AEDAT 3.1.
    """
    data = _contents(path)
    addresses, times = [np.empty(0, np.uint32)], [np.empty(0, np.int64)]
    start = _end_of_header(data, version=b"3")
    while start < len(data):
        if len(data) - start < _PACKET_HEADER.size:
            raise ValueError(f"is cut off: the packet at byte {start} has no room for its header")
        kind, _, size, _, overflows, capacity, number, _ = _PACKET_HEADER.unpack_from(data, start)
        start += _PACKET_HEADER.size
        if size * capacity > len(data) - start:
            raise ValueError(
                f"is cut off: a packet of {size * capacity} bytes begins at byte {start}, "
                f"but {len(data) - start} are left"
            )
        if kind == _POLARITY_PACKET:
            if size != 8 or number > capacity:
                raise ValueError(
                    f"has a packet at byte {start} with {number} of {capacity} events of {size} bytes, not 8"
                )
            events = np.frombuffer(data, "<u4", 2 * number, start).reshape(-1, 2)
            events = events[events[:, 0] & 1 == 1]
            addresses.append(events[:, 0])
            times.append(events[:, 1].astype(np.int64) | overflows << 31)
        start += size * capacity
    address = np.concatenate(addresses)
    x, y = (address >> 17).astype(np.uint16), (address >> 2 & 0x7FFF).astype(np.uint16)
    return Events(x, y, address >> 1 & 1 == 1, np.concatenate(times))


def read_npz(path: Path) -> Events:
    """Events of a file that SpikingJelly wrote (its `events_np` folder): arrays `x`, `y`, `p` of whole numbers.

    `p` is 1 for ON and 0, or -1, for OFF; times are there too but not needed. Nothing is unpickled.
    """
    _check_size(path)
    try:
        with zipfile.ZipFile(path) as archive:
            x, y, p = (_whole_numbers(archive, name) for name in "xyp")
    except FAULTS as error:
        raise ValueError(f"is no sound .npz file ({shortened(str(error))})") from error
    if not len(x) == len(y) == len(p):
        raise ValueError(f"has {len(x)} columns, {len(y)} rows and {len(p)} polarities, which must be equally many")
    if len(p) and not -1 <= p.min() <= p.max() <= 1:
        raise ValueError(f"has polarities from {p.min()} to {p.max()}, but 0 or 1 is what there can be")
    return Events(x, y, p > 0)


def _whole_numbers(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """The array `name` of an .npz file: one axis, whole numbers, and exactly as many as the member has bytes for."""
    member = archive.getinfo(f"{name}.npy")
    if member.file_size > 8 * MAX_EVENTS + 2**16:
        raise ValueError(f"says that its array {name} has {member.file_size} bytes, more than any recording here")
    with archive.open(member) as file:
        shape, _, dtype = read_header(file)
        data = file.read()  # never more than member.file_size bytes, whatever they were packed to
    if dtype.kind not in "iub" or len(shape) != 1 or shape[0] * dtype.itemsize != len(data):
        raise ValueError(
            f"has an array {name} of {dtype} with shape {shape} in {len(data)} bytes, but one axis of whole numbers is "
            "what there can be"
        )
    return np.frombuffer(data, dtype)


def _end_of_header(data: bytes, *, version: bytes) -> int:
    """Where the events begin: after the lines that begin with '#', or after '#!END-HEADER' where there is one."""
    if not data.startswith(b"#"):
        raise ValueError("is no AEDAT file: it does not begin with '#'")
    first = data[: data.find(b"\n")].strip()
    said = first.removeprefix(b"#!AER-DAT")
    if said != first and not said.startswith(version):
        raise ValueError(
            f"is in AEDAT {said.decode('ascii', 'replace')} format, but {version.decode()}.x is what this data set "
            "was published in"
        )
    start = 0
    while data[start : start + 1] == b"#":
        end = data.find(b"\n", start) + 1
        if not end:
            raise ValueError("is cut off in the middle of its header")
        ended = data[start:end].strip() == b"#!END-HEADER"
        start = end
        if ended:
            break
    return start


def _contents(path: Path) -> bytes:
    _check_size(path)
    with open(path, "rb") as file:
        return file.read(MAX_BYTES)


def _check_size(path: Path) -> None:
    size = path.stat().st_size
    if not 0 < size <= MAX_BYTES:
        raise ValueError(f"has {size} bytes, but a recording has between 1 and {MAX_BYTES}")
