"""A run goes on as the run that it is: with its configuration and its data, and with its files made whole."""

import csv
import json
import logging
import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from commands import failed, run
from image_files import write_images
from test_signals import stopped_at
from test_training import (
    SMALL,
    STEPS,
    assert_same_run,
    everything_in,
    finished,
    interrupted,
    numbers,
    written_rows,
)

from snn_probe.checkpoint import load
from snn_probe.config import RunConfig
from snn_probe.data import Split, fingerprint
from snn_probe.data import load as load_data
from snn_probe.machine import files
from snn_probe.own import allow
from snn_probe.runs.run_folder import RunFolder
from snn_probe.studies import products
from snn_probe.training import train

IMAGES = RunConfig(dataset="image-folder", image_size=8, epochs=3, num_steps=2, width=0.25, batch_size=4)
OTHERWISE = "or let it go on otherwise with --override (override=True)."


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The folder of a run of ``SMALL`` without a break."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    finished(SMALL, folder=folder, save_epochs=[1, 2, 3])
    return folder


@pytest.fixture
def copy(straight, tmp_path):
    """A copy of it."""
    return shutil.copytree(straight, tmp_path / "copy" / "run")


@pytest.fixture
def warnings(caplog):
    caplog.set_level(logging.WARNING, "snn_probe")
    return caplog


def sentence(text):
    return "^" + re.escape(text) + "$"


# --- data ---


def pictures(root, *, seed=0, **counts):
    """An image folder of two classes: how many in train and in test of each."""
    for number, split in enumerate(("train", "test")):
        shutil.rmtree(root / split, ignore_errors=True)
        for place, name in enumerate(("apple", "pear")):
            many = {name: counts.get(split, 10)}
            write_images(root / split, many, size=(48, 48), seed=100 * seed + 10 * number + place)


CHANGES = {
    "one gone": (lambda root: (root / "train/apple/3.png").unlink(), "18 -> 17 train examples"),
    "others": (lambda root: pictures(root, seed=1), "other train examples"),
    "other tests": (lambda root: shutil.copy(root / "test/apple/1.png", root / "test/apple/0.png"), "other test examples"),
    "more": (lambda root: pictures(root, train=20), "18 -> 36 train examples, 2 -> 4 validation examples"),
}  # fmt: skip


@pytest.mark.parametrize("in_memory", [True, False], ids=["in memory", "read as needed"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_data_folder_that_changed_is_refused_and_the_difference_named(tmp_path, monkeypatch, change, in_memory):
    if not in_memory:
        monkeypatch.setattr("snn_probe.data.sources.SMALL", 4)
    spoil, said = CHANGES[change]
    pictures(tmp_path / "data")
    interrupted(IMAGES, tmp_path / "run", after=1, data_root=tmp_path / "data")
    spoil(tmp_path / "data")
    before = everything_in(tmp_path)
    wanted = (
        rf"^The data of the run in .*run are not those it was begun with \({said}(, other \w+ examples)*\); restore them, "
        rf"choose another folder with --out, {re.escape(OTHERWISE)}$"
    )
    with pytest.raises(ValueError, match=wanted):
        train(IMAGES, folder=tmp_path / "run", data_root=tmp_path / "data", resume=True)
    assert everything_in(tmp_path) == before


@pytest.mark.parametrize("in_memory", [True, False], ids=["in memory", "read as needed"])
def test_a_data_folder_that_moved_or_has_a_class_more_is_the_same(tmp_path, monkeypatch, in_memory):
    if not in_memory:
        monkeypatch.setattr("snn_probe.data.sources.SMALL", 4)
    pictures(tmp_path / "data")
    finished(IMAGES, folder=tmp_path / "a" / "run", data_root=tmp_path / "data")
    interrupted(IMAGES, tmp_path / "b" / "run", after=1, data_root=tmp_path / "data")
    (tmp_path / "data").rename(tmp_path / "moved")
    for split in ("train", "test"):
        write_images(tmp_path / "moved" / split, {"quince": 4}, size=(8, 8))
    config = replace(IMAGES, classes=("apple", "pear"))
    finished(config, folder=tmp_path / "b" / "run", data_root=tmp_path / "moved", resume=True)
    assert_same_run(tmp_path / "a" / "run", tmp_path / "b" / "run")


@pytest.mark.parametrize("left", [4, 2])
def test_an_epoch_begun_with_other_data_is_refused_or_begins_anew(tmp_path, warnings, left):
    """Sums over the examples that there were, divided by the number of those left, were accuracies of 167 %."""
    pictures(tmp_path / "data")
    place = dict(folder=tmp_path / "run", data_root=tmp_path / "data")
    stopped_at(IMAGES, tmp_path / "run", 2, 4, data_root=tmp_path / "data")
    assert RunFolder(tmp_path / "run").read_resume()["plain"]["position"]["steps"] == 4
    pictures(tmp_path / "data", train=left, seed=2)
    with pytest.raises(ValueError, match=r"not those it was begun with \(18 -> "):
        train(IMAGES, **place, resume=True)
    shown = []
    finished(
        IMAGES, **place, resume=True, override=True, progress=lambda items, label: shown.append(len(items)) or items
    )
    assert shown == [-(-2 * (left - 1) // 4)] * 2
    for row in written_rows(tmp_path / "run"):
        assert 0 <= float(row["train_accuracy"]) <= 1
    (said,) = warnings.messages
    assert said.startswith(
        f"The run in {tmp_path / 'run'} goes on with other data (18 -> {2 * (left - 1)} train examples"
    )
    assert finished(IMAGES, **place, resume=True) == []  # these are the run's data now


def test_own_data_that_changed_are_refused(tmp_path, monkeypatch):
    data = load_data("digits", "train", num_examples=60)
    for number, scale in enumerate((1.0, 1.0, 2.0)):
        given = {"train": (data.inputs[:40] * scale, data.labels[:40]), "test": (data.inputs[40:], data.labels[40:])}
        allow("mine:data", given)
        config = replace(SMALL, dataset="mine:data", train_examples=20, epochs=2 + number)
        if scale == 1.0:
            interrupted(config, tmp_path / "run", after=1, resume=bool(number), override=bool(number))
    with pytest.raises(ValueError, match=r"not those it was begun with \(other train examples, other validation exam"):
        train(replace(config, epochs=3), folder=tmp_path / "run", resume=True)


def test_what_tells_splits_apart():
    data = load_data("digits", "train", num_examples=30)
    count, digest = fingerprint(data)
    assert count == 30 and fingerprint(load_data("digits", "train", num_examples=30)) == (30, digest)
    moved = data.inputs.clone()
    moved[29, 0, 7, 7] += 1e-3
    relabelled = data.labels.clone()
    relabelled[0] += 1
    others = [
        Split(moved, data.labels), Split(data.inputs, relabelled), Split(data.inputs.half(), data.labels),
        Split(data.inputs.mT, data.labels), Split(data.inputs[:, :, :4], data.labels), load_data("digits", "train", num_examples=29),
        Split(data.inputs.flip(0), data.labels.flip(0)), Split(data.inputs.reshape(30, 1, 4, 16), data.labels),
    ]  # fmt: skip
    assert len({digest, *(fingerprint(other)[1] for other in others)}) == 9


# --- the configuration of a saved state ---


def foreign(folder, **changed):
    """A run of another configuration."""
    interrupted(replace(SMALL, hyperparameters={}, **changed), folder, after=3)
    return folder


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"seed": 5}, "seed 5 -> 0"),
        ({"method": "tet", "batch_size": 8},
         "method 'tet' -> 'sdt', batch_size 8 -> 16, hyperparameters {'mse_weight': 0.05, 'mse_target': 1.0} -> {}"),
    ],
    ids=["seed", "method"],
)  # fmt: skip
def test_a_state_of_another_run_is_refused_and_the_difference_named(copy, tmp_path, changed, said):
    shutil.copy(foreign(tmp_path / "alien", **changed) / "resume.pt", copy / "resume.pt")
    before = everything_in(copy)
    wanted = (
        f"The state saved in {copy} is of another configuration than the run ({said}); restore the run's own "
        f"resume.pt, or its config.json, train anew in another folder, {OTHERWISE}"
    )
    with pytest.raises(ValueError, match=sentence(wanted)):
        train(SMALL, folder=copy, resume=True)
    assert everything_in(copy) == before


def test_a_seed_that_was_edited_between_stop_and_resume_is_noticed(tmp_path):
    folder = tmp_path / "run"
    interrupted(SMALL, folder, after=1)
    stored = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**stored, "seed": 7}))
    said = failed("train", "--resume", "--out", folder)
    assert said.startswith(f"The state saved in {folder} is of another configuration than the run (seed 0 -> 7);")
    done = run("train", "--resume", "--override", "--out", folder)
    assert "goes on with another configuration (seed 0 -> 7)." in done.stderr
    assert load(folder / "checkpoints" / "last.pt").config.seed == 7
    assert run("train", "--resume", "--out", folder).stderr == ""


def test_a_state_that_does_not_say_what_it_is_of_is_refused_or_overridden(tmp_path, warnings):
    """As states were before they said so."""
    stopped_at(SMALL, tmp_path / "run", 2, 2)
    state = torch.load(tmp_path / "run" / "resume.pt", weights_only=True)
    plain = json.loads(state["plain"])
    del plain["config"], plain["data"]
    torch.save({**state, "plain": json.dumps(plain)}, tmp_path / "run" / "resume.pt")
    said = f"The state saved in {tmp_path / 'run'} does not say of which configuration and data it is; train anew in "
    with pytest.raises(ValueError, match=sentence(f"{said}another folder, {OTHERWISE}")):
        train(SMALL, folder=tmp_path / "run", resume=True)
    shown = []
    finished(
        SMALL, folder=tmp_path / "run", resume=True, override=True,
        progress=lambda items, label: shown.append(len(items)) or items,
    )  # fmt: skip
    assert shown == [STEPS] * 3  # the epoch that was left within began anew
    assert [said.partition("(")[0].split(" with ")[1] for said in warnings.messages] == [
        "another configuration ", "other data "]  # fmt: skip


def test_what_was_overridden_need_not_be_said_again_after_a_kill(tmp_path):
    class Killed(BaseException):
        pass

    def killed(items, label):
        raise Killed

    folder, longer = tmp_path / "run", replace(SMALL, epochs=5)
    stopped_at(SMALL, folder, 3, 2)
    with pytest.raises(Killed):
        finished(longer, folder=folder, resume=True, override=True, progress=killed)
    shown = []
    epochs = train(longer, folder=folder, resume=True, progress=lambda items, label: shown.append(len(items)) or items)
    last = load(folder / "checkpoints" / "last.pt").card
    assert last["epoch"] == 2 and last["config"] == SMALL.to_dict()  # not written from weights within an epoch
    assert [c.epoch for c in epochs] == [3, 4, 5] and shown == [STEPS] * 3


def test_a_study_trains_a_run_anew_that_holds_a_state_of_another(copy, tmp_path):
    task = SimpleNamespace(run=SimpleNamespace(config=SMALL), epochs=[1, 2])
    assert products._continues(RunFolder(copy), task)
    shutil.copy(foreign(tmp_path / "alien", seed=5) / "resume.pt", copy / "resume.pt")
    assert not products._continues(RunFolder(copy), task)


@pytest.mark.parametrize("steps", [STEPS + 1, 10**9])
def test_a_position_beyond_the_epoch_is_refused(tmp_path, steps):
    stopped_at(SMALL, tmp_path / "run", 2, 2)
    edited(tmp_path / "run", lambda plain: plain["position"].update(steps=steps))
    said = f"The state to resume from is {steps} steps into epoch 2, which has {STEPS}; restore resume.pt from a copy, "
    with pytest.raises(ValueError, match=sentence(f"{said}or train anew in another folder.")):
        finished(SMALL, folder=tmp_path / "run", resume=True)


WRONG_PLACES = {
    "epoch": (4, "its position is not in the epoch after its last"),
    "steps": (-1, "its position is not in the epoch after its last"),
    "sums": ([1.0, 2.0], "its position has other sums"),
    "seconds": ("long", "its position has other sums"),
}


@pytest.mark.parametrize("name", WRONG_PLACES)
def test_a_position_of_anything_else_is_refused(tmp_path, name):
    value, reason = WRONG_PLACES[name]
    stopped_at(SMALL, tmp_path / "run", 2, 2)
    edited(tmp_path / "run", lambda plain: plain["position"].update({name: value}))
    with pytest.raises(ValueError, match=rf"resume\.pt does not fit the run \({reason}\); restore it from a copy"):
        train(SMALL, folder=tmp_path / "run", resume=True)


def test_rows_of_different_numbers_are_refused(copy):
    edited(copy, lambda plain: plain["rows"][1].pop("test_accuracy"))
    with pytest.raises(ValueError, match=r"resume\.pt does not fit the run \(its rows are not of the same numbers\);"):
        train(SMALL, folder=copy, resume=True)


def edited(folder, change):
    """Change what is plain of a run's state."""
    state = torch.load(folder / "resume.pt", weights_only=True)
    plain = json.loads(state["plain"])
    change(plain)
    torch.save({**state, "plain": json.dumps(plain)}, folder / "resume.pt")


# --- the folder made whole ---


def without_a_row(folder):
    lines = (folder / "metrics.csv").read_text().splitlines(keepends=True)
    (folder / "metrics.csv").write_text("".join(lines[:2] + lines[3:]))


def twice(folder):
    lines = (folder / "metrics.csv").read_text().splitlines(keepends=True)
    (folder / "metrics.csv").write_text("".join([*lines, lines[-1]]))


def cut(path):
    path.write_bytes(path.read_bytes()[:-300])


LOSSES = {
    "metrics gone": lambda folder: (folder / "metrics.csv").unlink(),
    "metrics without a row": without_a_row,
    "a row twice": twice,
    "metrics no text": lambda folder: (folder / "metrics.csv").write_bytes(b"epoch\n\xff\n"),
    "last gone": lambda folder: (folder / "checkpoints/last.pt").unlink(),
    "last cut off": lambda folder: cut(folder / "checkpoints/last.pt"),
    "last of before": lambda folder: shutil.copy(folder / "checkpoints/epoch_0002.pt", folder / "checkpoints/last.pt"),
    "best gone": lambda folder: (folder / "checkpoints/best.pt").unlink(),
    "all gone": lambda folder: [path.unlink() for path in [folder / "metrics.csv", *folder.glob("checkpoints/[lb]*")]],
}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_finished_run_is_made_whole(straight, copy, loss, caplog):
    best = load(straight / "checkpoints" / "best.pt").epoch
    assert best in (1, 2, 3, 4)
    LOSSES[loss](copy)
    caplog.set_level(logging.INFO, "snn_probe")
    assert finished(SMALL, folder=copy, resume=True) == []
    assert_same_run(straight, copy)
    assert caplog.messages and all("; it was written again as of epoch 4." in said for said in caplog.messages)
    before = everything_in(copy)
    finished(SMALL, folder=copy, resume=True)
    assert everything_in(copy) == before


def test_a_newer_state_of_the_run_itself_makes_an_older_folder_whole(straight, tmp_path):
    interrupted(SMALL, tmp_path / "run", after=2, save_epochs=[1, 2, 3])
    for name in ("resume.pt", "resume.previous.pt", "checkpoints/epoch_0003.pt"):
        shutil.copy(straight / name, tmp_path / "run" / name)
    done = run("train", "--resume", "--out", tmp_path / "run")
    assert f"{tmp_path / 'run'}/checkpoints/last.pt  epoch 4 (end of training)" in done.stdout
    assert_same_run(straight, tmp_path / "run")


def test_a_lost_best_checkpoint_is_said_to_be_lost_and_not_reported(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    finished(SMALL, folder=folder)
    edited(folder, lambda plain: [row.update(validation_accuracy=0.5 - 0.1 * row["epoch"]) for row in plain["rows"]])
    edited(folder, lambda plain: plain.update(best=[0.4, -plain["rows"][0]["validation_loss"]]))
    best = folder / "checkpoints" / "best.pt"
    best.unlink()
    done = run("train", "--resume", "--out", folder)
    said = f"{best} is not that of epoch 1, the best, whose weights nothing else here holds; restore it from a copy."
    assert said in done.stderr
    assert [line.split("  ")[0] for line in done.stdout.splitlines()] == [
        str(folder / "checkpoints" / "last.pt"), str(folder / "metrics.csv")]  # fmt: skip


def test_an_unfinished_run_is_made_whole_before_it_goes_on(straight, tmp_path):
    interrupted(SMALL, tmp_path / "run", after=2, save_epochs=[1, 2, 3])
    (tmp_path / "run" / "checkpoints" / "last.pt").unlink()
    (tmp_path / "run" / "metrics.csv").unlink()
    epochs = train(SMALL, folder=tmp_path / "run", resume=True)
    assert written_rows(tmp_path / "run") == written_rows(straight)[:2]
    last = load(tmp_path / "run" / "checkpoints" / "last.pt")
    assert (last.epoch, last.card["kind"]) == (2, "last")
    with open(straight / "metrics.csv", newline="") as file:
        wanted = numbers([*csv.DictReader(file)][1])
    assert {name: str(value) for name, value in numbers(last.card["metrics"]).items()} == wanted
    list(epochs)
    assert_same_run(straight, tmp_path / "run")


def test_weights_within_an_epoch_are_no_last_checkpoint(tmp_path):
    stopped_at(SMALL, tmp_path / "run", 2, 2)
    (tmp_path / "run" / "checkpoints" / "last.pt").unlink()
    epochs = train(SMALL, folder=tmp_path / "run", resume=True)
    assert not (tmp_path / "run" / "checkpoints" / "last.pt").exists()
    assert next(epochs).epoch == 2 and load(tmp_path / "run" / "checkpoints" / "last.pt").epoch == 2


# --- what a killed write leaves ---


def test_the_beginnings_of_files_are_removed_from_a_runs_own_folders_alone(copy):
    mine = [copy / ".snn_probe-0123456789abcdef.tmp", copy / "checkpoints" / ".snn_probe-0123456789abcdef.tmp"]
    others = [copy / "deeper" / ".snn_probe-0123456789abcdef.tmp", copy / "notes.tmp", copy / ".snn_probe-x.tmp" / "x"]
    for path in (*mine, *others):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    finished(SMALL, folder=copy, resume=True)
    assert not any(path.exists() for path in mine) and all(path.exists() for path in others)


def test_a_refused_run_removes_nothing_of_a_run_that_another_process_holds(copy):
    left = copy / ".snn_probe-0123456789abcdef.tmp"
    left.write_bytes(b"half")
    from snn_probe.machine.folder_lock import locked

    with locked(copy), pytest.raises(RuntimeError, match="is being worked on by"):
        train(SMALL, folder=copy, resume=True)
    assert left.exists()
    files.remove_leftovers(copy.parent, below=True)
    assert not left.exists()
