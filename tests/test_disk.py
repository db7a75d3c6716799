"""A disk that is full, a folder that is locked or not writable, files that a disk has spoilt."""

import errno
import logging
import os
import subprocess
from dataclasses import replace
from types import SimpleNamespace

import pytest
from commands import SMALL as OPTIONS
from commands import failed, run
from test_training import SMALL, assert_same_run, everything_in, finished, interrupted

from snn_probe.checkpoint import load
from snn_probe.machine import files, folder_lock
from snn_probe.machine.files import check_room, write_atomically
from snn_probe.machine.folder_lock import locked
from snn_probe.runs.run_folder import RunFolder
from snn_probe.training import train


@pytest.fixture
def little_disk(tmp_path):
    """A disk of its own that holds 2 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], capture_output=True)
    if made.returncode:
        pytest.skip("this machine lets nobody mount a file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_really_full_keeps_the_old_file_and_leaves_no_beginning(little_disk):
    write_atomically(little_disk / "file", b"old")
    with pytest.raises(OSError, match="the disk is full or its quota is used up; free some space or choose") as full:
        write_atomically(little_disk / "file", bytes(2_200_000))
    assert full.value.errno == errno.ENOSPC
    assert (little_disk / "file").read_bytes() == b"old" and os.listdir(little_disk) == ["file"]


def test_a_run_that_the_disk_cannot_hold_is_refused_before_it_begins(little_disk):
    said = failed("train", *OPTIONS, "--width", "4", "--out", little_disk / "run")
    assert said.startswith("The run will write about ") and " MB are free; free some space or choose another" in said
    assert os.listdir(little_disk / "run") == []
    run("train", *OPTIONS, "--width", "0.25", "--out", little_disk / "small")


def test_a_run_whose_disk_fills_up_goes_on_when_there_is_room(little_disk, tmp_path):
    run("train", *OPTIONS, "--out", tmp_path / "straight" / "run")
    epochs = train(config_of(tmp_path / "straight" / "run"), folder=little_disk / "run")
    next(epochs)
    filler = little_disk / "filler"
    while True:  # all that is left
        try:
            with open(filler, "ab", buffering=0) as file:
                if not file.write(bytes(4096)):
                    break
        except OSError:
            break
    with pytest.raises(OSError, match=r"^cannot write .*: the disk is full"):
        list(epochs)
    assert not list(little_disk.rglob("*.tmp"))
    assert load(little_disk / "run" / "checkpoints" / "last.pt").epoch in (1, 2)
    filler.unlink()
    run("train", "--resume", "--out", little_disk / "run")
    assert_same_run(tmp_path / "straight" / "run", little_disk / "run")


def config_of(folder):
    from snn_probe.config import RunConfig

    return RunConfig.from_dict(RunFolder(folder).read_config())


def test_room_is_measured_against_what_is_free(tmp_path, monkeypatch):
    monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1_000_000))
    check_room(tmp_path, 1_000_000, "It")
    with pytest.raises(
        OSError, match=r"^It will write about 2\.0 MB to .*, where 1\.0 MB are free; free some"
    ) as short:
        check_room(tmp_path, 2_000_000, "It")
    assert short.value.errno == errno.ENOSPC


def test_a_run_is_not_refused_for_what_is_already_there(tmp_path, monkeypatch):
    interrupted(SMALL, tmp_path / "run", after=2)
    there = sum(file.stat().st_size for file in (tmp_path / "run").rglob("*.pt"))
    monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: SimpleNamespace(free=there))
    assert finished(SMALL, folder=tmp_path / "run", resume=True)[-1].card["epoch"] == SMALL.epochs


def test_a_study_that_the_disk_cannot_hold_is_refused(tmp_path, monkeypatch):
    from test_reproduce_command import RECIPE

    (tmp_path / "small.toml").write_text(RECIPE)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    done = run("reproduce", tmp_path / "small.toml", "--out", tmp_path / "s", status=1)
    assert done.stderr.splitlines()[-1].startswith("Error: The study will write about ")
    assert not (tmp_path / "s" / "runs").exists()


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path, monkeypatch, code):
    def refuse(*arguments):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(folder_lock.os, "open", refuse)
    with pytest.raises(OSError, match=r"^cannot write .*run/\.lock: the folder .*run is not writable; choose another"):
        train(SMALL, folder=tmp_path / "run")


# --- two processes ---


def test_a_run_is_for_one_process_at_a_time(tmp_path):
    epochs = train(SMALL, folder=tmp_path / "run")
    next(epochs)
    before = everything_in(tmp_path)
    said = failed("train", "--resume", "--out", tmp_path / "run")
    assert said.startswith(f"{tmp_path}/run is being worked on by process {os.getpid()} on ") and " since 2" in said
    assert everything_in(tmp_path) == before
    epochs.close()
    finished(SMALL, folder=tmp_path / "run", resume=True)
    assert not (tmp_path / "run" / ".lock").exists()


def test_a_run_that_is_refused_or_never_begun_is_free_again(tmp_path):
    finished(SMALL, folder=tmp_path / "run")
    for _ in range(2):
        with pytest.raises(ValueError, match="already holds a run"):
            train(SMALL, folder=tmp_path / "run")
    train(SMALL, folder=tmp_path / "new")  # never iterated
    assert len(finished(SMALL, folder=tmp_path / "new", resume=True)) == 4


def test_a_lock_that_a_killed_process_has_left_counts_for_nothing(tmp_path):
    (tmp_path / ".lock").write_text("process 1 on another-machine since 2020-01-01T00:00:00+00:00")
    with locked(tmp_path):
        assert f"process {os.getpid()} on" in (tmp_path / ".lock").read_text()
    assert not (tmp_path / ".lock").exists()


def test_a_lock_that_was_removed_while_one_waited_for_it_is_not_taken(tmp_path, monkeypatch):
    """Else two could hold it: one the removed file, one the new."""
    waited = []
    wait = folder_lock._wait

    def removed_meanwhile(descriptor, place):
        wait(descriptor, place)
        waited.append(descriptor)
        if len(waited) == 1:
            place.unlink()

    monkeypatch.setattr(folder_lock, "_wait", removed_meanwhile)
    with locked(tmp_path):
        assert len(waited) == 2
        with pytest.raises(RuntimeError, match="is being worked on by process"), locked(tmp_path):
            pass


def test_a_system_without_locks_is_said(tmp_path, monkeypatch, caplog):
    import fcntl

    def none(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with locked(tmp_path):
        assert caplog.messages == [f"{tmp_path} cannot be locked on this system; let no other process work on it."]


# --- what a disk has spoilt ---


def test_of_a_spoilt_state_the_one_before_is_used_and_the_spoilt_one_named(tmp_path, caplog):
    finished(SMALL, folder=tmp_path / "a" / "run")
    interrupted(SMALL, tmp_path / "b" / "run", after=3)
    state = tmp_path / "b" / "run" / "resume.pt"
    state.write_bytes(state.read_bytes()[:-300])
    caplog.set_level(logging.WARNING, "snn_probe")
    assert [c.epoch for c in finished(SMALL, folder=tmp_path / "b" / "run", resume=True)] == [3, 4]
    (said,) = caplog.messages
    assert said.startswith(f"{state} cannot be used (") and "; going on from resume.previous.pt, after epoch 2." in said
    assert_same_run(tmp_path / "a" / "run", tmp_path / "b" / "run")


def test_of_two_spoilt_states_none_is_used(tmp_path):
    interrupted(SMALL, tmp_path / "run", after=2)
    for name in ("resume.pt", "resume.previous.pt"):
        (tmp_path / "run" / name).write_bytes(b"spoilt")
    before = everything_in(tmp_path)
    with pytest.raises(ValueError, match=r"resume\.pt cannot be used \(.*\); restore it from a copy, or train anew"):
        train(SMALL, folder=tmp_path / "run", resume=True)
    assert everything_in(tmp_path) == before


def test_the_state_before_survives_until_the_next_is_whole(tmp_path, monkeypatch):
    run_folder = RunFolder(tmp_path)
    states = [{"plain": {"epoch": epoch}, "model": {}, "optimizer": {}} for epoch in (1, 2, 3)]
    run_folder.write_resume(states[0])
    run_folder.write_resume(states[1])
    replaced = os.replace
    for stop_at in (0, 1):
        names = []

        def stop(one, other, names=names, stop_at=stop_at):
            names.append(other)
            if len(names) == stop_at + 1:
                raise OSError(5, "Input/output error")
            replaced(one, other)

        with monkeypatch.context() as patch, pytest.raises(OSError, match="cannot write"):
            patch.setattr(files.os, "replace", stop)
            run_folder.write_resume(states[2])
        assert run_folder.read_resume()["plain"]["epoch"] == 2
        run_folder.write_resume(states[1])


# --- another configuration ---


def test_a_run_goes_on_with_another_configuration_if_it_is_told_to(tmp_path):
    run("train", *OPTIONS, "--out", tmp_path / "run")
    said = failed("train", "--resume", "--epochs", "5", "--out", tmp_path / "run")
    assert "(epochs 3 -> 5); resume it as it was begun, choose another folder with --out, or let it go on" in said
    done = run("train", "--resume", "--override", "--epochs", "5", "--out", tmp_path / "run")
    assert "goes on with another configuration (epochs 3 -> 5)." in done.stderr
    last = load(tmp_path / "run" / "checkpoints" / "last.pt")
    assert last.epoch == 5 and last.config.epochs == 5 and config_of(tmp_path / "run").epochs == 5
    assert len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) == 6


def test_what_cannot_go_on_is_refused_and_stays_as_it_was(tmp_path):
    interrupted(SMALL, tmp_path / "run", after=2)
    before = everything_in(tmp_path)
    for changed, said in (
        (
            {"width": 2.0},
            r"^The weights of the run in .*run do not fit the other configuration \(width 1\.0 -> 2\.0\);",
        ),
        ({"epochs": 1}, r"^The run in .*run has done 2 epochs; give --epochs of at least that\.$"),
    ):
        with pytest.raises(ValueError, match=said):
            train(replace(SMALL, **changed), folder=tmp_path / "run", resume=True, override=True)
    assert everything_in(tmp_path) == before
    assert failed("train", "--override", "--out", tmp_path / "x", status=2).startswith("--override changes how a run")
