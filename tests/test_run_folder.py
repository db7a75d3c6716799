"""A run's folder belongs to one run, and what cannot be used of it is named in one sentence."""

import csv
import json
import math
import os
import pickle
import re

import pytest
import torch

from snn_probe.runs.run_folder import RunFolder

CONFIG = {"method": "trt", "epochs": 4, "hyperparameters": {"decay": 0.25}}
STATE = {
    "plain": {"epoch": 2, "rows": [{"epoch": 1, "loss": 0.1}, {"epoch": 2, "loss": 1 / 3}], "best": [0.5, -1.25]},
    "model": {"weight": torch.arange(3.0)},
    "optimizer": {"state": {0: {"step": torch.tensor(2.0)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
    "scaler": {},
}


def sentence(text):
    return "^" + re.escape(text) + "$"


@pytest.fixture
def run(tmp_path):
    return RunFolder(tmp_path / "some" / "run")


def test_paths_are_those_of_the_design(run):
    found = [run.config, run.metrics, run.resume, *(run.checkpoint(k, 5) for k in ("last", "best", "epoch"))]
    assert [str(path.relative_to(run.path)) for path in found] == [
        "config.json",
        "metrics.csv",
        "resume.pt",
        "checkpoints/last.pt",
        "checkpoints/best.pt",
        "checkpoints/epoch_0005.pt",
    ]
    assert run.checkpoint("epoch", 12345).name == "epoch_12345.pt"


# --- taking the folder ---


def test_looking_at_a_folder_makes_nothing(run, tmp_path):
    assert run.read_resume() is None
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("resume", [False, True])
def test_a_new_folder_is_taken_by_writing_the_configuration(run, resume):
    run.begin(CONFIG, resume=resume)
    assert os.listdir(run.path) == ["config.json"]
    assert json.loads(run.config.read_text()) == CONFIG == run.read_config()


def test_a_taken_folder_is_refused_without_resume(run):
    run.begin(CONFIG, resume=False)
    said = (
        f"{run.path} already holds a run; continue it with --resume (resume=True), or choose another folder with --out."
    )
    with pytest.raises(ValueError, match=sentence(said)):
        run.begin(CONFIG, resume=False)


def test_resuming_as_begun_leaves_the_configuration_alone(run):
    run.begin(CONFIG, resume=False)
    before = run.config.stat().st_mtime_ns
    run.begin(dict(reversed(CONFIG.items())), resume=True)
    assert run.config.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({**CONFIG, "epochs": 8}, "epochs 4 -> 8"),
        ({**CONFIG, "method": "tet", "epochs": 8}, "method 'trt' -> 'tet', epochs 4 -> 8"),
        ({**CONFIG, "hyperparameters": {"decay": 0.5}}, "hyperparameters {'decay': 0.25} -> {'decay': 0.5}"),
        ({**CONFIG, "new": 1}, "new None -> 1"),
        ({"method": "trt", "epochs": 4}, "hyperparameters {'decay': 0.25} -> None"),
    ],
)
def test_resuming_otherwise_is_refused_and_every_difference_named(run, config, said):
    run.begin(CONFIG, resume=False)
    said = (
        f"The run in {run.path} has another configuration ({said}); resume it as it was begun, "
        "choose another folder with --out, or let it go on otherwise with --override (override=True)."
    )
    with pytest.raises(ValueError, match=sentence(said)):
        run.begin(config, resume=True)
    assert run.read_config() == CONFIG


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe\x00"], ids=repr)
def test_a_configuration_that_is_no_json_object_is_refused_and_kept(run, content):
    run.path.mkdir(parents=True)
    run.config.write_bytes(content)
    said = f"{run.config} cannot be read as JSON; restore it or choose another folder with --out."
    for resume in (False, True):
        with pytest.raises(ValueError, match=sentence(said)):
            run.begin(CONFIG, resume=resume)
    with pytest.raises(ValueError, match=sentence(said)):
        run.read_config()
    assert run.config.read_bytes() == content


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("name", ["metrics.csv", "resume.pt", "checkpoints/last.pt"])
def test_what_is_left_of_an_unknown_run_is_not_overwritten(run, name, resume):
    place = run.path / name
    place.parent.mkdir(parents=True)
    place.write_text("precious")
    said = (
        f"{run.path} holds {name.split('/')[0]} but no config.json, so nobody knows of which run; "
        "choose another folder with --out."
    )
    with pytest.raises(ValueError, match=sentence(said)):
        run.begin(CONFIG, resume=resume)
    assert place.read_text() == "precious" and not run.config.exists()


def test_other_files_in_the_folder_do_not_matter(run):
    run.path.mkdir(parents=True)
    (run.path / "notes.txt").write_text("mine")
    run.begin(CONFIG, resume=False)
    assert (run.path / "notes.txt").read_text() == "mine"


def test_a_file_in_the_way_is_one_sentence(run):
    run.path.parent.mkdir()
    run.path.write_text("old")
    with pytest.raises(OSError, match=r"^cannot write .*config\.json: a file stands where the folder .* remove it or"):
        run.begin(CONFIG, resume=False)
    assert run.path.read_text() == "old"


# --- metrics ---


def test_metrics_come_back_in_full_precision(run):
    rows = [
        {"epoch": 1, "loss": 1 / 3, "rate": 1e-300},
        {"epoch": 2, "loss": math.pi, "rate": 5e-324},
    ]
    run.write_metrics(rows[:1])
    run.write_metrics(rows)
    with open(run.metrics, newline="") as file:
        found = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert found == rows
    assert run.metrics.read_bytes().startswith(b"epoch,loss,rate\n1,0.333")


# --- what resuming needs ---


def test_state_comes_back_exactly(run):
    run.write_resume(STATE)
    found = run.read_resume()
    assert found["plain"] == STATE["plain"]
    assert torch.equal(found["model"]["weight"], STATE["model"]["weight"])
    assert found["scaler"] == STATE["scaler"]
    assert found["optimizer"]["param_groups"] == STATE["optimizer"]["param_groups"]
    assert torch.equal(found["optimizer"]["state"][0]["step"], torch.tensor(2.0))


def test_there_is_no_state_before_the_first_epoch_ends(run):
    run.begin(CONFIG, resume=False)
    assert run.read_resume() is None


def refused(run, reason):
    said = f"{run.resume} cannot be used ({reason}); restore it from a copy, or train anew in another folder."
    with pytest.raises(ValueError, match=sentence(said)):
        run.read_resume()


def test_damaged_state_is_refused(run):
    run.write_resume(STATE)
    whole = run.resume.read_bytes()
    for length in (5, 100, len(whole) // 2, len(whole) - 1):
        run.resume.write_bytes(whole[:length])
        refused(run, "it is damaged")
    run.resume.write_bytes(b"")
    refused(run, "it is damaged")


@pytest.mark.parametrize("content", [{}, {"format": "snn_probe.checkpoint/1"}, {"format": "snn_probe.resume/2"}, [1]])
def test_state_of_another_format_is_refused(run, content):
    run.path.mkdir(parents=True)
    torch.save(content, run.resume)
    refused(run, "its format is not 'snn_probe.resume/1'")


@pytest.mark.parametrize("missing", ["plain", "model", "optimizer"])
def test_incomplete_state_is_refused(run, missing):
    run.path.mkdir(parents=True)
    content = {**STATE, "format": "snn_probe.resume/1", "plain": json.dumps(STATE["plain"])}
    del content[missing]
    torch.save(content, run.resume)
    refused(run, "it is not complete")


class Runs:
    """Unpickling this runs a shell command that leaves a file behind."""

    def __init__(self, marker):
        self.command = f"touch '{marker}'"

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("raw", [True, False])
def test_code_in_the_state_is_not_run(run, tmp_path, raw):
    marker = tmp_path / "it ran"
    run.path.mkdir(parents=True)
    if raw:
        run.resume.write_bytes(pickle.dumps(Runs(marker)))
    else:
        torch.save({**STATE, "format": "snn_probe.resume/1", "plain": Runs(marker)}, run.resume)
    refused(run, "it holds more than tensors and text, and was not run")
    assert not marker.exists()
    with open(run.resume, "rb") as file:
        pickle.load(file) if raw else torch.load(file, weights_only=False)
    assert marker.exists()  # the file was a loaded gun
