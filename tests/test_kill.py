"""kill -9 at 50 random moments of a training, a landscape grid and a study: each start goes on, no file is ever
unreadable, and the end is that of a run that nobody disturbed.

One process imports everything once and forks the ones that are killed, so that a start costs no seconds.
"""

import json
import subprocess
import sys

import pytest
import torch
from test_reproduce_command import RECIPE

from snn_probe import checkpoint, results
from snn_probe.runs.run_folder import RunFolder

TRAIN = "--method tet --augment --width 0.25 --epochs 5 --train-examples 64 --batch-size 4 --num-steps 2 --eval-examples 16".split()
GRID = "--points 30 --num-examples 32 --batch-size 8 --no-figure".split()
KILLS = {"train": 20, "landscape": 15, "reproduce": 15}

LAUNCHER = """
import json, os, random, signal, sys, time
from snn_probe import study
from snn_probe.cli import main
from snn_probe.probes import hessian, landscape  # what the commands import late
import snn_probe.training, snn_probe.commands.measuring, snn_probe.tables.flatness
import pandas, spikingjelly.activation_based.layer, torch
from snn_probe import data, models
from snn_probe import figures as gallery
data.load("digits", "train", num_steps=1)
torch.optim.Adam([torch.zeros(1, requires_grad=True)])
torch.set_num_threads(1)
study.conclude = lambda tables, folder, **figures: None
landscape.loss_slice.__kwdefaults__["save_every"] = 0.0
snn_probe.runs.one_epoch.SECONDS_BETWEEN_STATES = 0.2

def begin(arguments, log):
    pid = os.fork()
    if pid:
        return pid
    with open(log, "ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    status = 99
    try:
        main(arguments)
    except SystemExit as end:
        status = end.code or 0
    finally:
        os._exit(status)

def end(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def killed(arguments, kills, choose, log):
    '''Statuses of the starts: each killed at a random moment until ``kills`` were; where one got to its end before,
    the whole begins anew. At last one is left alone.'''
    began = time.monotonic()
    first = end(begin(arguments("straight"), log))
    whole = time.monotonic() - began
    statuses, hits, place = [], 0, 0
    while hits < kills:
        pid = begin(arguments(f"killed{place}"), log)
        time.sleep(choose.uniform(0.0, 0.35) * whole)
        os.kill(pid, signal.SIGKILL)
        status = end(pid)
        statuses.append(status)
        hits += status == -signal.SIGKILL
        if status == 0:
            place += 1
    for number in range(place + 1):
        statuses.append(end(begin(arguments(f"killed{number}"), log)))
    return dict(first=first, statuses=statuses, hits=hits, places=place + 1, seconds=whole)

choose, kills = random.Random(50), json.loads(sys.argv[1])
train, grid = json.loads(sys.argv[2]), json.loads(sys.argv[3])
CALLS = {
    "train": lambda name: ["train", "--resume", "--out", f"train/{name}/run", *train],
    "landscape": lambda name: ["landscape", "train/straight/run/checkpoints/last.pt", "--out", f"landscape/{name}", *grid],
    "reproduce": lambda name: ["reproduce", "small.toml", "--out", f"reproduce/{name}"],
}
print(json.dumps({what: killed(call, kills[what], choose, f"{what}.log") for what, call in CALLS.items()}))
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The folder of all, and what became of each start."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "small.toml").write_text(RECIPE)
    given = [json.dumps(one) for one in (KILLS, TRAIN, GRID)]
    done = subprocess.run([sys.executable, "-c", LAUNCHER, *given], cwd=folder, capture_output=True, text=True)
    logs = "\n".join(path.read_text()[-3000:] for path in folder.glob("*.log"))
    assert done.returncode == 0, done.stderr + logs
    return folder, json.loads(done.stdout.splitlines()[-1]), logs


def test_fifty_kills_and_every_start_goes_on(killed):
    _, found, logs = killed
    assert sum(one["hits"] for one in found.values()) == 50
    for what, one in found.items():
        assert one["first"] == 0 and one["hits"] == KILLS[what], (what, one)
        assert set(one["statuses"]) <= {0, -9}, (what, one, logs)
        assert set(one["statuses"][-one["places"] :]) == {0}, what
    assert "Traceback" not in logs and "Error" not in logs and "cannot be used" not in logs


def places(folder, what):
    straight = folder / what / "straight"
    broken = sorted((folder / what).glob("killed*"))
    assert broken
    return straight, broken


def without_times(value):
    """Without seconds, dates, and what is made of them."""
    if isinstance(value, dict):
        return {key: without_times(one) for key, one in value.items() if key not in ("seconds", "date")}
    return [without_times(one) for one in value] if isinstance(value, list) else value


def test_training_ends_as_if_nobody_had_disturbed_it(killed):
    straight, broken = places(killed[0], "train")
    for folder in broken:
        one, other = (RunFolder(place / "run") for place in (straight, folder))
        a, b = one.read_resume(), other.read_resume()
        assert without_times(a["plain"]) == without_times(b["plain"])
        for name, tensor in a["model"].items():
            assert torch.equal(tensor, b["model"][name])
        for kind in ("last", "best"):
            cards = [checkpoint.load(run.checkpoint(kind, 0)).card for run in (one, other)]
            assert cards[0]["sha256"] == cards[1]["sha256"] and cards[0]["epoch"] == cards[1]["epoch"]
        rows = [[line.rsplit(",", 1)[0] for line in run.metrics.read_text().splitlines()] for run in (one, other)]
        assert rows[0] == rows[1] and len(rows[0]) == 6


def test_a_grid_ends_as_if_nobody_had_disturbed_it(killed):
    straight, broken = places(killed[0], "landscape")
    for folder in broken:
        one, other = (results.load(place / "landscape_last.json") for place in (straight, folder))
        assert one.table.equals(other.table) and one.settings == other.settings
        assert not list(folder.glob("*partial*"))


def test_a_study_ends_as_if_nobody_had_disturbed_it(killed):
    straight, broken = places(killed[0], "reproduce")
    made = sorted(path.relative_to(straight) for path in straight.rglob("results/*/*.json"))
    assert len(made) == 2
    for folder in broken:
        for name in made:
            assert (folder / name).read_bytes() == (straight / name).read_bytes()
        assert json.loads((folder / "study.json").read_text())["complete"]
        for file in folder.rglob("*.pt"):
            assert (
                checkpoint.load(file).card["sha256"]
                == checkpoint.load(straight / file.relative_to(folder)).card["sha256"]
            )
