"""TensorBoard's event files hold the rows of metrics.csv, each epoch once, whatever was interrupted."""

import csv
import math
import sys
from collections import Counter
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
from commands import SMALL, failed, run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from snn_probe.config import RunConfig
from snn_probe.runs import tensorboard
from snn_probe.runs.tensorboard import tag_of, to_tensorboard
from snn_probe.training import train

CONFIG = RunConfig(method="sdt", epochs=3, train_examples=40, batch_size=16, num_steps=2)
TAGS = {
    "objective": "loss/objective", "train_loss": "loss/train", "validation_loss": "loss/validation",
    "test_loss": "loss/test", "train_accuracy": "accuracy/train", "validation_accuracy": "accuracy/validation",
    "test_accuracy": "accuracy/test", "learning_rate": "training/learning_rate",
    "gradient_norm": "training/gradient_norm", "firing_rate": "training/firing_rate", "seconds": "training/seconds",
}  # fmt: skip


def events(folder):
    """{tag: [(step, value), ...]} of all event files in a folder, by step: files begun in the same second are read in
    any order."""
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0}, purge_orphaned_data=False)
    found.Reload()
    return {tag: sorted((event.step, event.value) for event in found.Scalars(tag)) for tag in found.Tags()["scalars"]}


def metrics(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def assert_the_same(folder, board):
    """Every number of metrics.csv is there once, and nothing else (float32, as it stores)."""
    rows, found = metrics(folder), events(board)
    assert set(found) == set(TAGS.values()) == {tag_of(name) for name in rows[0] if name != "epoch"}
    for name, tag in TAGS.items():
        assert found[tag] == [(int(row["epoch"]), float(np.float32(row[name]))) for row in rows], name


def test_the_command_writes_what_metrics_says(tmp_path):
    run("train", *SMALL, "--out", tmp_path / "run", "--tensorboard")
    assert_the_same(tmp_path / "run", tmp_path / "run" / "tensorboard")
    run("train", *SMALL, "--out", tmp_path / "other", "--tensorboard", tmp_path / "board")
    assert_the_same(tmp_path / "other", tmp_path / "board")
    assert not (tmp_path / "other" / "tensorboard").exists()
    run("train", *SMALL, "--out", tmp_path / "none")
    assert not (tmp_path / "none" / "tensorboard").exists()


def test_in_python_without_a_folder_for_the_run(tmp_path):
    seen = [checkpoint.card["metrics"] for checkpoint in to_tensorboard(train(CONFIG), tmp_path)]
    found = events(tmp_path)
    assert found["loss/test"] == [(row["epoch"], float(np.float32(row["test_loss"]))) for row in seen]
    assert [row["epoch"] for row in seen] == [1, 2, 3]


@pytest.mark.parametrize("before", [0, 1, 2, 3])
def test_a_resumed_run_has_each_epoch_once(tmp_path, before):
    """Interrupted after some epochs, of which TensorBoard saw none, some or all."""
    folder, board = tmp_path / "run", tmp_path / "board"
    epochs = train(CONFIG, folder=folder)
    for _ in islice(to_tensorboard(epochs, board, run=folder), min(before, 2)):
        pass
    if before == 3:  # one more was saved, and the process ended before TensorBoard heard of it
        next(epochs)
    epochs.close()
    run("train", *SMALL, "--learning-rate", 0.001, "--out", folder, "--resume", "--tensorboard", board)
    assert_the_same(folder, board)


def test_a_finished_run_is_written_afterwards_and_only_once(tmp_path):
    folder = tmp_path / "run"
    run("train", *SMALL, "--out", folder)
    for _ in range(2):
        run("train", "--out", folder, "--resume", "--tensorboard")
        assert_the_same(folder, folder / "tensorboard")


def test_a_row_that_an_interrupt_left_beyond_the_last_epoch_is_not_written_twice(tmp_path):
    """metrics.csv is written before resume.pt, so it may be an epoch ahead of what training resumes from."""
    folder, board = tmp_path / "run", tmp_path / "board"
    epochs = train(CONFIG, folder=folder)
    next(epochs)
    saved = (folder / "resume.pt").read_bytes()
    next(epochs)
    epochs.close()
    (folder / "resume.pt").write_bytes(saved)
    assert len(metrics(folder)) == 2
    again = [c.epoch for c in to_tensorboard(train(CONFIG, folder=folder, resume=True), board, run=folder)]
    assert again == [2, 3]
    assert_the_same(folder, board)


def test_a_number_that_was_not_finite_is_nan(tmp_path):
    row = {"epoch": 1, "train_loss": None, "gradient_norm": 2.5}
    list(to_tensorboard([SimpleNamespace(epoch=1, card={"metrics": row})], tmp_path))
    found = events(tmp_path)
    assert found["training/gradient_norm"] == [(1, 2.5)]
    assert [(step, math.isnan(value)) for step, value in found["loss/train"]] == [(1, True)]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.csv").write_text("epoch,train_loss,gradient_norm\n1,,2.5\n2,0.5,1.5\n")
    list(to_tensorboard([], tmp_path / "board", run=tmp_path / "run"))
    found = events(tmp_path / "board")["loss/train"]
    assert math.isnan(found[0][1]) and found[1:] == [(2, 0.5)]


def test_the_folder_of_another_run_is_refused_before_an_epoch_is_trained(tmp_path):
    list(to_tensorboard(train(replace(CONFIG, epochs=1)), tmp_path / "board"))
    before = events(tmp_path / "board")
    said = failed("train", *SMALL, "--out", tmp_path / "run", "--tensorboard", tmp_path / "board")
    assert said == f"{tmp_path / 'board'} holds epoch 1 of another run; give another folder for TensorBoard."
    assert not (tmp_path / "run").exists() and events(tmp_path / "board") == before


def test_without_the_package_it_is_one_sentence_before_an_epoch_is_trained(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    said = failed("train", *SMALL, "--out", tmp_path / "run", "--tensorboard")
    assert said == "The package tensorboard is missing; install it: pip install tensorboard"
    assert not (tmp_path / "run").exists()


def test_of_several_processes_the_first_alone_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(tensorboard, "rank", lambda: 1)
    checkpoints = [SimpleNamespace(epoch=1, card={"metrics": {"epoch": 1, "train_loss": 0.5}})]
    assert list(to_tensorboard(checkpoints, tmp_path / "board")) == checkpoints
    assert not (tmp_path / "board").exists()


def test_an_epoch_is_on_the_disk_before_the_next_begins(tmp_path):
    seen = Counter()
    for checkpoint in to_tensorboard(train(CONFIG), tmp_path):
        seen[checkpoint.epoch] = len(events(tmp_path)["loss/train"])
    assert seen == {1: 1, 2: 2, 3: 3}
