"""``snnprobe reproduce``: what it prints, refuses and leaves, and how it ends when it is told to."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import failed, run

from snn_probe import study
from snn_probe.machine.folder_lock import locked

RECIPE = """
title = "A small study"
[train]
epochs = 2
num_steps = 2
batch_size = 16
width = 0.25
train_examples = 40
[arms.sdt]
[arms.trt]
method = "trt"
[probes.timesteps]
split = "train"
"""
START = (
    "from snn_probe import study\nfrom snn_probe.cli import main\n"
    "if __name__ == '__main__':\n    study.conclude = lambda tables, folder, **figures: None\n    main()\n"
)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(study, "conclude", lambda tables, folder, **figures: None)
    (tmp_path / "small.toml").write_text(RECIPE)
    return tmp_path


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_dry_run_says_the_plan_and_writes_nothing(here):
    done = run("reproduce", "small.toml", "--dry-run")
    lines = done.stdout.splitlines()
    assert lines[:3] == ["A small study", "2 runs (2 arms x 1 seed), 2 results, in reports/small", "To do:"]
    assert [line.split()[0] for line in lines[3::2]] == ["training", "timesteps", "time", "disk"]
    assert (
        lines[4]
        == "    4 epochs: 1 forward and 1 backward through 40 examples in 3 steps, 1 forward through 539 to evaluate"
    )
    assert lines[6] == "    2 results: 1 forward through 40 examples"
    assert lines[7].endswith(" with 1 process") and re.match(
        r"  memory  about [\d.]+ [MG]B at the peak of a process", lines[8]
    )
    assert done.stderr.startswith("Warning: Arm 'trt' is TRT, and no arm is its control; add one with the same")
    assert files(here) == ["small.toml"]


def test_a_dry_run_deals_the_runs_out_over_devices(here, monkeypatch):
    said = run("reproduce", "small.toml", "--dry-run", "--devices", 3, "--jobs", 2).stdout
    assert " on one device, " in said and " on 3 with 1 process on each; there are 2 runs, and none is split" in said
    words = failed("reproduce", "small.toml", "--devices", 2, status=2)
    assert words == "--devices 2 is for --dry-run alone; give --device cuda with --jobs of at least 2."
    monkeypatch.setenv("WORLD_SIZE", "2")
    words = failed("reproduce", "small.toml", "--dry-run", status=2)
    assert words == "--dry-run calibrates in one process; leave torchrun out and give --devices N."


def test_a_study_lies_where_it_is_told_and_paths_are_all_that_goes_to_stdout(here):
    done = run("reproduce", "small.toml", "--out", "elsewhere", "--keep", "nothing")
    assert done.stdout.splitlines() == [f"elsewhere/{name}" for name in ("claims.csv", "report.md", "report.html")]
    assert "2 runs (2 arms x 1 seed), 2 results, in elsewhere" in done.stderr
    runs = [f"elsewhere/runs/{arm}-seed0/{name}" for arm in ("sdt", "trt") for name in ("config.json", "metrics.csv")]
    assert set(runs) < set(files(here)) and not any(name.endswith(".pt") for name in files(here))
    again = run("reproduce", "small.toml", "--out", "elsewhere", "--keep", "nothing")
    assert "Nothing is missing of the runs and results." in again.stderr


def test_the_figures_have_the_width_and_formats_that_are_asked_for(here, monkeypatch):
    asked = []
    monkeypatch.setattr(study, "conclude", lambda tables, folder, **figures: asked.append(figures))
    run("reproduce", "small.toml")
    run("reproduce", "small.toml", "--width", "3.25in", "--svg")
    assert asked == [
        {"width": 6.75, "formats": ("pdf", "png")},
        {"width": 3.25, "formats": ("pdf", "png", "svg")},
    ]


def test_a_wrong_recipe_is_wrong_usage(here):
    (here / "wrong.toml").write_text(RECIPE + "colour = 1")
    said = failed("reproduce", "wrong.toml", status=2)
    assert said.startswith("wrong.toml: [probes.timesteps] has the unknown key 'colour'; allowed are kind, epochs,")
    assert failed("reproduce", "none.toml", status=2).startswith("none.toml cannot be read")
    assert files(here) == ["small.toml", "wrong.toml"]


def test_a_folder_in_use_is_one_sentence(here):
    (here / "small.toml").write_text(RECIPE.partition("[arms.trt]")[0])
    with locked("reports/small"):
        said = failed("reproduce", "small.toml")
    assert said.startswith(f"reports/small is being worked on by process {os.getpid()} on ")


def started(here, *options):
    command = [sys.executable, "start.py", "reproduce", "small.toml", *options]
    (here / "start.py").write_text(START)
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process = subprocess.Popen(command, cwd=here, **pipes)
    until = time.monotonic() + 120
    while not list(here.glob("reports/small/runs/*/metrics.csv")) and time.monotonic() < until:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    return process


LONG = RECIPE.replace("epochs = 2", "epochs = 400")


def has_ended(pid):
    """Whether there is no such process, or only what its parent, being dead, does not collect."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def stopped(here, how):
    """End a study of two processes in its middle; its exit status, its processes having ended."""
    (here / "small.toml").write_text(LONG)
    process = started(here, "--jobs", "2")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) >= 2
    process.send_signal(how)
    out, err = process.communicate(timeout=60)
    assert out == "" and "Traceback" not in err
    (here / "small.toml").write_text(RECIPE)
    assert run("reproduce", "small.toml").exit_code == 0  # the lock is free only when all of them have ended
    until = time.monotonic() + 30
    while not all(map(has_ended, children)):
        assert time.monotonic() < until
        time.sleep(0.05)
    return process.returncode


def test_sigterm_ends_it_and_its_processes_with_143(here):
    assert stopped(here, signal.SIGTERM) == 143


def test_its_processes_end_with_it_however_it_ends_and_it_can_go_on_at_once(here):
    assert stopped(here, signal.SIGKILL) == -signal.SIGKILL


def test_what_was_saved_when_it_is_told_to_end_is_complete(here):
    (here / "small.toml").write_text(LONG)
    process = started(here)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60)[0] == ""
    assert process.returncode == 143
    assert not [name for name in files(here) if name.endswith(".tmp")]
    assert not (here / "reports/small/.lock").exists()
    assert '"complete": false' in (here / "reports/small/study.json").read_text()
