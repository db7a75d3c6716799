"""The free memory from made-up copies of the files in which Linux tells it."""

import pytest
import torch

from snn_probe.machine import free_memory
from snn_probe.machine.free_memory import free_bytes, of_main_memory

PAGE_CACHE = "MemTotal:       24684092 kB\nMemFree:         230000 kB\nMemAvailable:   20000000 kB\n"


@pytest.fixture
def root(tmp_path):
    write(tmp_path, "proc/meminfo", PAGE_CACHE)
    return tmp_path


def write(root, name, text):
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(str(text))


def test_what_the_file_cache_would_give_up_is_free(root):
    assert of_main_memory(root) == 20_000_000 * 1024


def test_the_groups_of_version_2_limit_it(root):
    write(root, "proc/self/cgroup", "0::/slurm/job_7/step_0\n")
    own = "sys/fs/cgroup/slurm/job_7/step_0"
    write(root, f"{own}/memory.max", "max\n")
    write(root, f"{own}/memory.current", 10**9)
    assert of_main_memory(root) == 20_000_000 * 1024
    job = "sys/fs/cgroup/slurm/job_7"  # the limit of the whole job
    write(root, f"{job}/memory.max", f"{4 * 10**9}\n")
    write(root, f"{job}/memory.current", f"{3 * 10**9}\n")
    write(
        root, f"{job}/memory.stat", f"anon {10**9}\nactive_file {7 * 10**8}\ninactive_file {5 * 10**8}\nfile {10**9}\n"
    )
    assert of_main_memory(root) == 1e9 + 1.2e9
    write(root, f"{job}/memory.current", 6 * 10**9)
    assert of_main_memory(root) == 0  # over the limit: not less than nothing


@pytest.mark.parametrize("own", ["", "/docker/9f11"])  # inside a container its own group is the root of what is mounted
def test_the_groups_of_version_1_limit_it(root, own):
    write(root, "proc/self/cgroup", "9:name=systemd:/\n5:cpu,cpuacct:/\n4:hugetlb,memory:/docker/9f11\n0::/\n")
    write(root, f"sys/fs/cgroup/memory{own}/memory.limit_in_bytes", 2 * 10**9)
    write(root, f"sys/fs/cgroup/memory{own}/memory.usage_in_bytes", 5 * 10**8)
    write(root, f"sys/fs/cgroup/memory{own}/memory.stat", "cache 9\ntotal_inactive_file 1000\n")
    assert of_main_memory(root) == 1.5e9 + 1000


def test_a_system_that_says_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("os.sysconf", {"SC_AVPHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}.__getitem__)
    assert of_main_memory(tmp_path) == 4_096_000

    def unknown(name):
        raise ValueError(name)

    monkeypatch.setattr("os.sysconf", unknown)
    assert of_main_memory(tmp_path) == free_memory.UNKNOWN


def test_this_machine():
    """Real files; more than any process needs to get here."""
    assert 1e8 < free_bytes(torch.device("cpu")) < 1e16
