"""Freed memory stays with the process within the context: counted by the pages that it takes anew."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from snn_probe.costs.calibration import held
from snn_probe.machine import allocation

pytestmark = pytest.mark.skipif(allocation._mallopt() is None, reason="this is for the GNU C library alone")

ROUNDS = """
import resource, sys, torch
from contextlib import nullcontext
from snn_probe.machine.allocation import freed_memory_kept

torch.set_num_threads(1)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    kept = [torch.ones(int(sys.argv[2]) << 18) for _ in range(5)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with freed_memory_kept() if sys.argv[1] == "kept" else nullcontext():
    with freed_memory_kept() if sys.argv[1] == "kept" else nullcontext():
        faults()
    print(*(faults() for _ in range(5)))
"""


def pages(which, megabytes):
    """How many pages each of five rounds of five arrays takes anew, within the context."""
    done = subprocess.run(
        [sys.executable, "-c", ROUNDS, which, str(megabytes)], capture_output=True, text=True, check=True
    )
    return [[int(word) for word in line.split()] for line in done.stdout.splitlines()]


@pytest.mark.parametrize("megabytes", [16, 64])  # above 32 the library takes pages of their own by itself
def test_what_is_freed_is_taken_again(megabytes):
    for _ in range(2):  # without the context a round of the smaller takes 16,000 pages, in three starts of four
        assert max(pages("kept", megabytes)[0][3:]) < 50  # the first ones find their places


def handed_back():
    with allocation.freed_memory_kept():
        torch.ones(1 << 20)  # the first of its kind brings what stays
        allocation.hand_back()
        before = held("cpu")
        kept = [torch.ones(1 << 20) for _ in range(40)]  # 4 MB each
        last = torch.ones(1000)  # above them in the heap
        del kept
        assert held("cpu") - before > 150e6
        allocation.hand_back()
        assert abs(held("cpu") - before) < 20e6 and len(last) == 1000


def handed_back_at_the_end():
    allocation.hand_back()
    before = held("cpu")
    with allocation.freed_memory_kept():
        large = [torch.ones(1 << 24) for _ in range(5)]  # 64 MB each
        last = torch.ones(1000)  # above them in the heap
        with allocation.freed_memory_kept():
            del large
        assert held("cpu") - before > 250e6
    assert abs(held("cpu") - before) < 80e6 and len(last) == 1000


@pytest.mark.parametrize("name", ["handed_back", "handed_back_at_the_end"])
def test_what_lies_free_is(name):
    """In a process of its own, whose heap no other test has left in pieces."""
    code = f"import test_allocation; test_allocation.{name}()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parent)
    assert done.returncode == 0, done.stderr


def test_the_outermost_context_sets_and_resets(monkeypatch):
    asked = []
    monkeypatch.setattr(allocation, "_mallopt", lambda: lambda name, value: asked.append((name, value)))
    with pytest.raises(KeyError), allocation.freed_memory_kept():
        with allocation.freed_memory_kept():
            assert asked == [(-3, 32 << 20), (-1, -1), (-4, 0)]
        assert len(asked) == 3
        raise KeyError
    assert asked[3:] == [(-3, 32 << 20), (-1, 64 << 20), (-4, 1 << 16)]


def test_where_the_library_is_another_nothing_happens(monkeypatch):
    monkeypatch.setattr(allocation, "_mallopt", lambda: None)
    with allocation.freed_memory_kept():
        assert allocation._within == 1
    assert allocation._within == 0
