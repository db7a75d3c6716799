"""Files as a bad disk, a killed program or an enemy leaves them: changes of sound ones, the same for the same seed."""

import copy
import io
import json
import os
import pickle
import random
import re
import signal
import struct
import tarfile
import zipfile
from contextlib import contextmanager

import numpy as np
import torch

HUGE = (0xFFFFFFFF, 0x7FFFFFFF, 10**12, 0x7FFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF)
WRONG = (
    None, True, False, -1, 0, 1, 0.5, 10**12, -(10**30), 1e308, float("nan"), float("inf"), float("-inf"), "", "x", "nan",
    "../../../etc/passwd", "/dev/zero", "<script>alert(1)</script>", "a\0b\n\u2028", "9" * 5000, [], {}, [[]], [None],
    {"a": {}}, {"": 1}, [1, "x", None], "os:system", "\ud800",
)  # fmt: skip
WORDS = (
    "nan",
    "inf",
    "-1",
    "1e400",
    "9" * 13,
    "9" * 5000,
    "",
    '"',
    "\0",
    "[" * 3000,
    "{",
    "'''",
    "../..",
    "=",
    ",",
    "\u00b2",
    "\r",
)


def damaged(content, seed, count):
    """``count`` byte strings: cut off, flipped, zeroed, moved, with huge numbers written over what may be sizes."""
    rng = random.Random(seed)
    found = [b"", content[:1], content[: len(content) // 2], content[:-1], content * 2, content + b"\0" * 7]
    found += [bytes(len(content)), b"\xff" * len(content), content[1:], b"\n" + content]
    while len(found) < count:
        found.append(_one(bytearray(content), rng))
    return found[:count]


def _one(content, rng):
    place = rng.randrange(len(content))
    begin = place if rng.random() < 0.5 else place % 256  # headers stand at the beginning
    match rng.randrange(6):
        case 0:
            return bytes(content[:place])
        case 1:
            content[begin] ^= 1 << rng.randrange(8)
        case 2:
            for _ in range(8):
                content[rng.randrange(len(content))] = rng.randrange(256)
        case 3:
            number = rng.choice(HUGE)
            kind = rng.choice("<I >I <Q >Q".split())
            raw = struct.pack(kind, number & (2 ** (8 * struct.calcsize(kind)) - 1))
            content[begin : begin + len(raw)] = raw
        case 4:
            del content[begin : begin + rng.randrange(1, 40)]
        case 5:
            content[begin:begin] = rng.randbytes(rng.randrange(1, 40))
    return bytes(content)


def misstated(document, seed, count):
    """``count`` JSON documents with one or two values of a wrong type, missing, or beyond every size."""
    rng = random.Random(seed)
    for _ in range(count):
        changed = copy.deepcopy(document)
        for _ in range(rng.choice((1, 1, 2))):
            changed = _misstate(changed, rng)
        yield changed


def _misstate(document, rng):
    holder, key = None, None
    here = document
    while isinstance(here, dict | list) and here and (holder is None or rng.random() < 0.75):
        keys = list(here) if isinstance(here, dict) else range(len(here))
        holder, key = here, rng.choice(keys)
        here = here[key]
    if holder is None:
        return rng.choice(WRONG)
    if rng.random() < 0.2:
        del holder[key]
    else:
        holder[key] = copy.deepcopy(rng.choice(WRONG))
    return document


def as_json(document):
    """Its bytes, NaN and Infinity as Python writes them."""
    return json.dumps(document).encode()


def deep_json():
    """Documents that are nothing but depth."""
    return [b"[" * 100_000, b"[" * 5000 + b"]" * 5000, b'{"a":' * 100_000, b'{"a":' * 3000 + b"1" + b"}" * 3000]


def reworded(text, seed, count):
    """``count`` texts of which one word, number or sign is another."""
    rng = random.Random(seed)
    pieces = re.findall(r"[\w.+-]+|[^\w.+-]", text)
    for _ in range(count):
        changed = list(pieces)
        changed[rng.randrange(len(pieces))] = rng.choice(WORDS)
        yield "".join(changed).encode()


class Running:
    """What writes the marker when a pickle of it is loaded."""

    def __init__(self, marker, way):
        self.marker, self.way = str(marker), way

    def __reduce__(self):
        return {
            "open": (open, (self.marker, "w")),
            "system": (os.system, (f"touch {self.marker}",)),
            "eval": (eval, (f"open({self.marker!r}, 'w')",)),
            "exec": (exec, (f"open({self.marker!r}, 'w')",)),
            "mkdir": (os.mkdir, (self.marker,)),
        }[self.way]


WAYS = ("open", "system", "eval", "exec", "mkdir")


def running(marker):
    """Pickles, torch files, arrays and archives that write ``marker`` when anything in them is run."""
    for way in WAYS:
        evil = Running(marker, way)
        for content in (
            evil,
            {"state_dict": {"w": torch.ones(1)}, "more": evil},
            {evil.way: torch.ones(1), "e": [evil]},
        ):
            for protocol in (0, 2, 4):
                yield pickle.dumps(content, protocol)
            for zipped in (True, False):
                buffer = io.BytesIO()
                torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
                yield buffer.getvalue()
        array = np.array([evil, 1], dtype=object)
        for write in (np.save, np.savez):
            buffer = io.BytesIO()
            write(buffer, array)
            yield buffer.getvalue()
    yield climbing_tar(marker)
    yield climbing_zip(marker)


def climbing_tar(marker):
    """A tar, as torch.save wrote once, whose members lie above the folder that they are unpacked into."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("pickle", "storages", "tensors", "sys_info", str(marker), f"../../../../../../../..{marker}"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO(b""))
    return buffer.getvalue()


def climbing_zip(marker):
    """A zip with absolute and climbing names, and a pickle that is no pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("archive/data.pkl", "archive/version", str(marker), f"../../../../../../../..{marker}"):
            archive.writestr(name, b"\x80\x02}q\0.")
    return buffer.getvalue()


def inflating(content, name, size):
    """A zip whose member ``name`` is ``size`` zeros, packed; the others are those of the zip ``content``."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for item in old.infolist():
            new.writestr(item.filename, bytes(size) if item.filename == name else old.read(item))
    return buffer.getvalue()


def npy(shape, descr="'<f4'", more=b""):
    """A .npy file that says this shape, whatever follows."""
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + more


BOASTING = [
    npy("(1000000, 1000, 1000, 1)"), npy("(1000000000000,)"), npy("(-1, 2, 2, 2)"), npy("(True, 2, 2, 2)"),
    npy("(99999999999999999999, 2, 2, 2)"), npy("(0, 10000000000000, 2, 2)"), npy("(2, 2, 2, 2)", "'|O'"),
    npy("(2, 2, 2, 2)", "'V1000000000'"), npy("(2, 2, 2, 2)", "[('a', '<f4'), ('b', '|O')]"),
    npy("(2, 2, 2, 2)", "'<U100000000'"), npy("(" * 200 + ")" * 200), npy("__import__('os')"), npy("(2,", more=b"x"),
    npy("(1, 2, 2, 2)", "'<f8'", struct.pack("<8d", *[float("nan")] * 8)),
    npy("(1, 2, 2, 2)", "'<f8'", struct.pack("<8d", *[1e300] * 8)), npy("(1, 2, 2, 2)", "'<c8'", bytes(64)),
]  # fmt: skip
"""Arrays that say more than they have, or what no array of numbers has."""


class Hung(BaseException):
    """A case that took too long; no reader catches it."""


@contextmanager
def within(seconds):
    """Raises Hung in what takes longer."""

    def stop(number, frame):
        raise Hung

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
