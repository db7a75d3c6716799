"""Ctrl-C and the signals of clusters: at which moment work stops, what it has saved, and how it goes on."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from commands import run
from test_training import SMALL, STEPS, assert_same_run, finished, noisy

from snn_probe.config import RunConfig
from snn_probe.machine import interrupts
from snn_probe.machine.interrupts import SIGNALS, Interrupted, listening, unbroken
from snn_probe.machine.progress import Progress
from snn_probe.models import MODELS
from snn_probe.runs import one_epoch
from snn_probe.runs.run_folder import RunFolder
from snn_probe.studies.workers import spread
from snn_probe.training import train

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 138}


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_stops_at_once_but_waits_for_the_end_of_what_is_unbroken(number):
    before, done = signal.getsignal(number), []
    with pytest.raises(Interrupted) as stopped, listening():
        signal.raise_signal(number)
        done.append("past it")
    assert stopped.value.number == number and not done
    with pytest.raises(Interrupted), listening(), unbroken():
        with unbroken():
            signal.raise_signal(number)
            done.append("inner")
        done.append("outer")
    assert done == ["inner", "outer"]
    assert signal.getsignal(number) is before and interrupts.asked() is None


def test_a_second_signal_stops_at_once_but_not_what_torchrun_repeats(monkeypatch):
    monkeypatch.setattr(interrupts, "_SAME", 0.05)
    done = []
    with pytest.raises(Interrupted), listening(), unbroken():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        done.append("the same")
        time.sleep(0.1)
        signal.raise_signal(signal.SIGINT)
        done.append("too far")
    assert done == ["the same"]


def test_what_was_ignored_stays_ignored_and_other_threads_do_not_listen():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with listening():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    said = []

    def work():
        with listening():
            said.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert said == [signal.getsignal(signal.SIGTERM)]


def test_a_signal_that_a_callback_has_swallowed_is_noticed_at_the_next_item():
    seen = []
    with pytest.raises(Interrupted), listening():
        for item in Progress([1, 2, 3], "items"):
            seen.append(item)
            try:
                signal.raise_signal(signal.SIGTERM)
            except Interrupted:  # as Python does with what is raised in __del__
                pass
    assert seen == [1]


# --- training ---


def stopping(epoch, step, then=signal.SIGTERM):
    """A progress that sends this process a signal before a step."""

    def progress(items, label):
        for number, item in enumerate(items, 1):
            if label.startswith(f"epoch {epoch}/") and number == step:
                signal.raise_signal(then)
            yield item

    return progress


def stopped_at(config, folder, epoch, step, **options):
    with pytest.raises(Interrupted), listening():
        finished(config, folder=folder, progress=stopping(epoch, step), **options)


CASES = {
    "sdt": replace(SMALL, method="sdt"),
    "tet, augmented": replace(SMALL, method="tet", augment=True),
    "trt, augmented": replace(SMALL, method="trt", augment=True, hyperparameters={"decay": 0.5}),
    "noise in the network": replace(SMALL, model="noisy"),
    "stages": RunConfig(
        **dict(batch_size=16, train_examples=40, learning_rate=0.01, num_steps=3),
        stages=[{"epochs": 2, "num_steps": 2}, {"epochs": 2, "method": "trt"}],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_run_stopped_within_epochs_is_bit_for_bit_the_run_without_a_stop(tmp_path, monkeypatch, name):
    monkeypatch.setitem(MODELS, "noisy", noisy)
    config, unbroken_, broken = CASES[name], tmp_path / "a" / "run", tmp_path / "b" / "run"
    finished(config, folder=unbroken_)
    stopped_at(config, broken, 1, 2)  # before any epoch is whole
    assert RunFolder(broken).read_resume()["plain"]["position"]["steps"] == 2
    stopped_at(config, broken, 3, 1, resume=True)  # in the first step of another stage
    plain = RunFolder(broken).read_resume()["plain"]
    assert (plain["epoch"], plain["position"]["epoch"], plain["position"]["steps"]) == (2, 3, 1)
    stopped_at(config, broken, 3, 2, resume=True)  # its third step, the second of this process
    torch.manual_seed(99)
    assert [c.epoch for c in finished(config, folder=broken, resume=True)] == [3, 4]
    assert_same_run(unbroken_, broken)


def test_at_most_a_step_is_lost_and_none_is_repeated(tmp_path):
    labels = []

    def seen(items, label):
        for item in items:
            labels.append(label)
            yield item

    stopped_at(SMALL, tmp_path / "run", 2, 2)
    finished(SMALL, folder=tmp_path / "run", resume=True, progress=seen)
    assert labels == ["epoch 2/4"] * (STEPS - 2) + ["epoch 3/4"] * STEPS + ["epoch 4/4"] * STEPS


def test_a_signal_during_evaluation_keeps_the_epochs_training(tmp_path, monkeypatch):
    from snn_probe import training

    finished(SMALL, folder=tmp_path / "a" / "run")
    evaluate = training.evaluate

    def told(*arguments):
        signal.raise_signal(signal.SIGUSR1)
        return evaluate(*arguments)

    with monkeypatch.context() as patch, pytest.raises(Interrupted), listening():
        patch.setattr(training, "evaluate", told)
        finished(SMALL, folder=tmp_path / "b" / "run")
    assert RunFolder(tmp_path / "b" / "run").read_resume()["plain"]["position"]["steps"] == STEPS
    labels = []
    finished(
        SMALL, folder=tmp_path / "b" / "run", resume=True, progress=lambda items, label: labels.extend(items) or items
    )
    assert len(labels) == 3 * STEPS
    assert_same_run(tmp_path / "a" / "run", tmp_path / "b" / "run")


def test_a_second_signal_within_a_step_saves_nothing_half_done(tmp_path, monkeypatch):
    monkeypatch.setattr(interrupts, "_SAME", 0.0)

    def twice(*arguments):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    stopped_at(SMALL, tmp_path / "b" / "run", 1, 1)
    with monkeypatch.context() as patch, pytest.raises(Interrupted), listening():
        patch.setattr(one_epoch, "_add", twice)  # when the weights have moved
        finished(SMALL, folder=tmp_path / "b" / "run", resume=True)
    assert RunFolder(tmp_path / "b" / "run").read_resume()["plain"]["position"]["steps"] == 1
    finished(SMALL, folder=tmp_path / "a" / "run")
    finished(SMALL, folder=tmp_path / "b" / "run", resume=True)
    assert_same_run(tmp_path / "a" / "run", tmp_path / "b" / "run")


def test_a_long_epoch_is_saved_on_the_way_and_a_kill_goes_on_from_there(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(items, label):
        for number, item in enumerate(items, 1):
            if label == "epoch 2/4" and number == STEPS:
                raise Killed
            yield item

    finished(SMALL, folder=tmp_path / "a" / "run")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(one_epoch, "SECONDS_BETWEEN_STATES", -1.0)
        finished(SMALL, folder=tmp_path / "b" / "run", progress=killed)
    assert RunFolder(tmp_path / "b" / "run").read_resume()["plain"]["position"]["steps"] == STEPS - 1
    finished(SMALL, folder=tmp_path / "b" / "run", resume=True)
    assert_same_run(tmp_path / "a" / "run", tmp_path / "b" / "run")


# --- commands ---


@pytest.mark.parametrize("number", STATUS)
@pytest.mark.parametrize("probe", ["fisher", "hessian", "landscape", "gradients"])
def test_probes_stop_with_the_signals_status(checkpoint, tmp_path, monkeypatch, probe, number):
    """The signal comes between the first and the second batch, product or point."""
    original = Progress.__iter__

    def told(self):
        for item in original(self):
            yield item
            signal.raise_signal(number)

    monkeypatch.setattr(Progress, "__iter__", told)
    small = ["--num-examples", 12, "--batch-size", 4, "--no-figure"]
    done = run(probe, checkpoint, *small, "--out", tmp_path, status=STATUS[number])
    assert done.stderr.splitlines()[-1] == "Interrupted; what was saved before is complete."
    assert not list(tmp_path.glob("*_last.json")) and not list(tmp_path.glob("*.tmp"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    run(
        "train", "--epochs", 1, "--train-examples", 40, "--num-steps", 2, "--eval-examples", 16, "--out", folder / "run"
    )
    return folder / "run" / "checkpoints" / "last.pt"


def slow_task(task):
    with unbroken():
        yield "begun"
        time.sleep(0.5)
        Path(task).write_text("whole")
    time.sleep(60)
    yield "never"


def test_a_worker_that_is_told_to_end_finishes_its_unit(tmp_path):
    began = time.monotonic()
    steps = spread(slow_task, [str(tmp_path / "unit")], jobs=1)
    assert next(steps) == "begun"
    steps.close()
    assert (tmp_path / "unit").read_text() == "whole"
    assert time.monotonic() - began < 50


LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", "-m", "snn_probe"]
LONG = "--epochs 8 --train-examples 240 --batch-size 2 --num-steps 2 --eval-examples 8 --learning-rate 0.01".split()


def test_under_torchrun_all_processes_stop_together_and_go_on(tmp_path):
    environment = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE")}
    command = [*LAUNCH, "train", *LONG, "--out", str(tmp_path / "run")]
    child = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while not (tmp_path / "run" / "config.json").exists() and child.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(2.0)
    children = [pid for pid in os.listdir("/proc") if pid.isdigit() and str(tmp_path / "run") in _command_of(pid)]
    told = time.monotonic()
    child.send_signal(signal.SIGTERM)
    _, said = child.communicate(timeout=60)
    assert child.returncode != 0 and time.monotonic() - told < 25, said
    assert len(children) >= 3 and not any(os.path.exists(f"/proc/{pid}") for pid in children)
    assert said.count("Interrupted; what was saved before is complete.") == 1, said
    plain = RunFolder(tmp_path / "run").read_resume()["plain"]
    assert plain["epoch"] < 8
    again = [*LAUNCH, "train", "--resume", *LONG, "--out"]
    for folder in ("run", "straight"):
        done = subprocess.run([*again, str(tmp_path / folder)], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    states = [torch.load(tmp_path / name / "resume.pt", weights_only=True) for name in ("run", "straight")]
    for name, tensor in states[0]["model"].items():
        assert torch.equal(tensor, states[1]["model"][name]), name


def test_between_epochs_several_processes_wait_for_the_step_after_which_they_agree(tmp_path, monkeypatch):
    """One that left at once would leave the others waiting for it."""
    monkeypatch.setattr("snn_probe.training.world_size", lambda: 2)
    with listening():
        epochs = train(SMALL, folder=tmp_path / "run")
        assert next(epochs).epoch == 1
        signal.raise_signal(signal.SIGTERM)  # noticed, and no more
        with pytest.raises(Interrupted):
            next(epochs)
    plain = RunFolder(tmp_path / "run").read_resume()["plain"]
    assert (plain["epoch"], plain["position"]["epoch"], plain["position"]["steps"]) == (1, 2, 1)


def _command_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def test_training_from_a_program_that_does_not_listen_is_as_ever(tmp_path):
    epochs = train(SMALL, folder=tmp_path / "run", progress=stopping(1, 1, signal.SIGINT))
    with pytest.raises(KeyboardInterrupt) as stopped:
        list(epochs)
    assert not isinstance(stopped.value, Interrupted)
