"""What a study will take: passes against hooks on the network, memory against a process that does it, time by hand."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from counted_passes import Counted

from snn_probe import study
from snn_probe.distributed import in_turn
from snn_probe.studies import estimate as module
from snn_probe.studies import measure
from snn_probe.studies.estimate import Cost, dealt_out, estimate, lines
from snn_probe.studies.passes import passes_of
from snn_probe.studies.plan import plan
from snn_probe.studies.products import Where, outstanding
from snn_probe.studies.recipe import parse_recipe
from snn_probe.studies.recipe_probes import KINDS
from snn_probe.studies.workers import spread

SMALL = """
title = "A small study"
[train]
epochs = 5
num_steps = 3
width = 0.25
batch_size = 16
train_examples = [40, 80]
[arms.sdt]
[arms.tit]
stages = [{epochs = 3, num_steps = 2}, {epochs = 2, num_steps = 3}]
"""
PROBE = "[probes.{}]\nsplit = 'train'\nbatch_size = 16\n"
EPOCH = "1 forward and 1 backward through {} examples in {} steps, 1 forward through 539 to evaluate"


def costs_of(text, folder):
    return estimate(outstanding(folder, plan(parse_recipe(text))), {}, Where(folder))


def times(costs):
    """How often which passes are made in all."""
    found = {}
    for cost in costs:
        for what, count in cost.passes.items():
            found[what] = found.get(what, 0) + count
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_passes_are_those_that_the_network_makes(tmp_path, monkeypatch, kind):
    recipe = parse_recipe(SMALL.replace("[40, 80]", "64") + PROBE.format(kind).replace("16", "32"))
    one = plan(recipe)[0].measurements[0]
    checkpoint = module._untrained(one, Where(tmp_path))
    counted = Counted(monkeypatch, measure, 32, 64, neuron=kind.startswith("fisher"))
    found = measure.measure_probe(one.probe, checkpoint, data_root=None, device="cpu")
    forward, backward, products = passes_of(one.probe, found, 32)
    assert counted.forward == pytest.approx(forward, rel=1e-12)
    assert counted.backward - counted.products == pytest.approx(backward, rel=1e-12)
    assert counted.products == products or kind == "eigenslice"  # where it is said as a rule
    assert abs(counted.products - products) < 20


def test_every_run_and_checkpoint_counts_with_its_own_examples_and_timesteps(tmp_path, monkeypatch):
    steps = set()
    monkeypatch.setattr(
        module, "measure_probe", lambda probe, of, **more: steps.add(of.stage.num_steps) or real(probe, of, **more)
    )
    real = measure.measure_probe
    text = SMALL + PROBE.format("fisher") + "epochs = [1, 'last']\n"
    parts = costs_of(text, tmp_path)
    assert times(parts["training"]) == {EPOCH.format(40, 3): 10, EPOCH.format(80, 5): 10}
    said = "1 forward, {} backward through {} examples"  # to the first of 3 timesteps, to the second, the third
    assert times(parts["fisher"]) == {
        said.format("2", 40): 3, said.format("1.5", 40): 1, said.format("2", 80): 3, said.format("1.5", 80): 1,
    }  # fmt: skip
    assert steps == {2, 3}
    assert {cost.run for cost in parts["fisher"]} == {cost.run for cost in parts["training"]}


def cost(run, seconds, memory, size):
    return Cost(run, seconds, {"1 forward through 8 examples": 1}, memory, size, memory is None)


PARTS = {
    "training": [cost("a", 60.0, 3e8, 2e6), cost("b", 20.0, 3e8, 1e6), cost("c", 20.0, 2e8, 0.0)],
    "fisher": [cost("a", 5.0, 4e8, 5e5), cost("b", 5.0, 4e8, 0.0)],
}


def test_the_lines_add_up(tmp_path):
    assert lines(PARTS, 2) == [
        "  training                 3 runs, about 2 min, 300 MB of memory (calibrated)",
        "    3 epochs: 1 forward through 8 examples",
        "  fisher                   2 results, about 10 s, 400 MB of memory (calibrated)",
        "    2 results: 1 forward through 8 examples",
        "  time    about 65 s with 2 processes",  # 60 + 5 beside 20 + 5 + 20
        "  memory  about 400 MB at the peak of a process (fisher), 800 MB of 2 processes on one device",
        "  disk    3.5 MB, figures not counted",
    ]


@pytest.mark.parametrize(
    ("jobs", "devices", "time", "memory"),
    [
        (1, 1, "about 2 min with 1 process", ""),
        (5, 1, "about 65 s with 3 processes; there are 3 runs, and none is split",
         ", 1.2 GB of 3 processes on one device"),
        (1, 2, "about 2 min on one device, 65 s on 2 with 1 process on each", ""),
        (2, 2, "about 65 s on one device, 65 s on 2 with 2 processes on each; there are 3 runs, and none is split",
         ", 800 MB of 2 processes on one device"),
        (2, 9, "about 65 s on one device, 65 s on 9 with 1 process on each; there are 3 runs, and none is split", ""),
    ],
)  # fmt: skip
def test_no_run_is_split_over_processes(jobs, devices, time, memory):
    *_, said, held, _ = lines(PARTS, jobs, devices)
    assert said == f"  time    {time}"
    assert held == f"  memory  about 400 MB at the peak of a process (fisher){memory}"


def test_memory_that_is_not_known_is_said_so():
    known, unknown = PARTS["training"], [replace(one, memory=None) for one in PARTS["fisher"]]
    assert lines({"training": known, "fisher": unknown}, 1)[-2] == (
        "  memory  about 300 MB at the peak of a process (training); not known of fisher, measured before"
    )
    assert lines({"fisher": unknown}, 1)[-2] == "  memory  not known of fisher, measured before"


def test_each_process_takes_the_next_run_when_it_is_free():
    assert dealt_out([4.0, 1.0, 1.0, 1.0, 3.0], 2) == 6.0  # 4; 1, 1, 1, 3
    assert dealt_out([2.0] * 4, 3) == 4.0 and dealt_out([5.0, 1.0], 9) == 5.0 and dealt_out([1.0, 2.0], 1) == 3.0


def test_processes_take_the_cuda_devices_in_turn(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert in_turn("cuda") == ["cuda:0", "cuda:1"] and in_turn("cuda:1") == ["cuda:1"] and in_turn("cpu") == ["cpu"]
    given = []
    monkeypatch.setattr(study, "spread", lambda performs, *rest, **more: given.extend(performs) or iter(()))
    list(study._steps([], Where(tmp_path, device="cuda"), 3, 0))
    assert [perform.keywords["where"].device for perform in given] == ["cuda:0", "cuda:1"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert in_turn("cuda") == ["cuda"]


def test_each_process_performs_what_its_turn_is():
    assert set(spread([range, reversed], [3, "ab"], jobs=2)) == {0, 1, 2, "a", "b"}


LARGE = """
title = "One run"
[train]
epochs = 1
num_steps = 3
train_examples = 640
[arms.sdt]
[probes.eigenvalues]
k = 1
num_examples = 640
"""
PROCESS = """
import sys
from pathlib import Path
from snn_probe import study
from snn_probe.studies.products import Where
from snn_probe.studies.recipe import parse_recipe
study.conclude = study.estimate = lambda *arguments, **options: {}
def now(name):
    text = Path("/proc/self/status").read_text()
    return next(1024 * int(line.split()[1]) for line in text.splitlines() if line.startswith(name))
before = now("VmRSS")
study.run_study(parse_recipe(sys.argv[1]), "large", Where(Path(sys.argv[2])))
print(before, now("VmHWM"))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process is known on Linux alone")
def test_the_memory_is_right_within_a_factor_of_one_and_a_half(tmp_path):
    """The growth of the peak beyond what the program holds at its start, each in a process of its own."""
    (tmp_path / "large.toml").write_text(LARGE)
    dry = [sys.executable, "-m", "snn_probe", "reproduce", tmp_path / "large.toml", "--dry-run"]
    real = [sys.executable, "-c", PROCESS, LARGE, tmp_path / "large"]
    said, truth = (
        subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path).stdout for words in (dry, real)
    )
    number, unit, part = re.search(r"about (\S+) (MB|GB) at the peak of a process \((\w+)\)", said).groups()
    before, peak = map(float, truth.split())
    print(said, truth)
    assert part == "eigenvalues"
    assert 1 / 1.5 < (float(number) * {"MB": 1e6, "GB": 1e9}[unit] - before) / (peak - before) < 1.5
