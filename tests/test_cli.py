"""The command line: files where the design says, one sentence and the right exit status for whatever goes wrong."""

import csv
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from commands import SMALL, failed, run, whole_file

import snn_probe
from snn_probe import checkpoint as checkpoints
from snn_probe import results, system
from snn_probe.checkpoint import build_model, load
from snn_probe.cli import main
from snn_probe.data import DATASETS, batches
from snn_probe.data import load as load_data
from snn_probe.machine.progress import Progress
from snn_probe.probes import fisher_trace

FISHER = "--num-examples 12 --batch-size 5".split()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two runs' folders, made by the command."""
    folder = tmp_path_factory.mktemp("trained")
    run("train", "--method", "trt", "-p", "decay=0.5", *SMALL, "--save-epochs", "1,2", "--out", folder / "trt")
    run("train", "--method", "tet", "--dataset", "event-digits", "--augment", *SMALL, "--out", folder / "events")
    return SimpleNamespace(
        trt=folder / "trt",
        events=folder / "events",
        last=folder / "trt" / "checkpoints" / "last.pt",
        epochs=[folder / "trt" / "checkpoints" / f"epoch_000{epoch}.pt" for epoch in (1, 2)],
        events_last=folder / "events" / "checkpoints" / "last.pt",
    )


@pytest.fixture(scope="module")
def measured(trained, tmp_path_factory):
    """A folder with the results of several checkpoints of one run, and their combined table."""
    folder = tmp_path_factory.mktemp("measured")
    done = run("fisher", *trained.epochs, trained.last, *FISHER, "--out", folder)
    return SimpleNamespace(folder=folder, done=done, epoch1=folder / "fisher_epoch_0001.json")


# --- end to end ---


@pytest.mark.parametrize("dataset", ["digits", "event-digits"])
def test_train_fisher_figure_show_with_nothing_but_defaults_for_the_places(tmp_path, monkeypatch, dataset):
    monkeypatch.chdir(tmp_path)
    name = f"{dataset}-tiny-trt-seed7"
    done = run("train", "--method", "trt", "--dataset", dataset, "--seed", 7, *SMALL)
    made = tmp_path / "trained_models" / name
    for path in ("config.json", "metrics.csv", "resume.pt", "checkpoints/last.pt", "checkpoints/best.pt"):
        assert (made / path).is_file()
    lines = done.stdout.splitlines()
    assert re.fullmatch(
        rf"trained_models/{name}/checkpoints/last\.pt  epoch 3 \(end of training\): test accuracy \d+\.\d\d%", lines[0]
    )
    assert re.fullmatch(
        rf"trained_models/{name}/checkpoints/best\.pt  epoch [123] \(chosen on validation\): test accuracy .*%",
        lines[1],
    )
    assert lines[2:] == [f"trained_models/{name}/metrics.csv"]
    assert [line.split("  ")[0] for line in done.stderr.splitlines()] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]

    done = run("fisher", f"trained_models/{name}/checkpoints/last.pt", *FISHER)
    reports = tmp_path / "reports" / name
    written = ["fisher_last.json", "fisher_trace.png", "fisher_trace.pdf"]
    assert sorted(os.listdir(reports)) == sorted(written)
    assert done.stdout.splitlines()[-3:] == [f"reports/{name}/{file}" for file in written]
    assert all(whole_file(reports / file) for file in written[1:])
    result = results.load(reports / "fisher_last.json")
    assert result.probe == "fisher_trace" and result.source["run"] == name
    total = result.table[result.table["layer"] == "all"]["trace"].tolist()
    shown = [float(line.split()[1]) for line in done.stdout.splitlines()[2:4]]
    assert shown == pytest.approx(total, rel=1e-5) and len(total) == 2 and min(total) > 0

    done = run("figure", f"reports/{name}/fisher_last.json", "-o", "again.pdf")
    assert done.stdout == "again.pdf\n"
    assert (tmp_path / "again.pdf").read_bytes() == (reports / "fisher_trace.pdf").read_bytes()
    for file in (
        f"trained_models/{name}",
        f"trained_models/{name}/checkpoints/best.pt",
        f"reports/{name}/fisher_last.json",
    ):
        assert run("show", file).stdout.startswith(f"{file}: ")


def test_fisher_of_the_command_is_that_of_the_function(trained, measured):
    checkpoint = load(trained.last)
    data = load_data("digits", "train", num_examples=12)
    expected = fisher_trace(build_model(checkpoint), batches(data, 5))
    found = results.load(measured.folder / "fisher_last.json")
    pd.testing.assert_frame_equal(found.table, expected.table)
    assert found.settings == {**expected.settings, "split": "train", "num_examples": 12}
    assert found.source == {**checkpoint.card, "file": "last.pt", "stage": asdict(checkpoint.stage)}


def test_options_reach_the_probe(trained, tmp_path):
    options = "--split validation --group-size 4 --labels sampled --readout instantaneous --seed 3 --num-examples 12"
    done = run("fisher", trained.last, *options.split(), "--out", tmp_path, "--no-figure")
    expected = fisher_trace(
        build_model(load(trained.last)),
        batches(load_data("digits", "validation", num_examples=12), 64),
        group_size=4,
        labels="sampled",
        readout="instantaneous",
        seed=3,
    )
    pd.testing.assert_frame_equal(results.load(tmp_path / "fisher_last.json").table, expected.table)
    assert "(3 groups, mean gradient of 4 examples)" in done.stdout


def test_training_options_reach_the_configuration(trained):
    assert json.loads((trained.trt / "config.json").read_text()) == {
        "method": "trt",
        "dataset": "digits",
        "model": "tiny",
        "num_steps": 2,
        "epochs": 3,
        "batch_size": 16,
        "learning_rate": 0.01,
        "train_examples": 40,
        "augment": False,
        "seed": 0,
        "hyperparameters": {
            "strength": 1e-5,
            "decay": 0.5,
            "epsilon": 1e-5,
            "mse_weight": 0.05,
            "penalize": "non_bias",
        },
        "width": 1.0,
        "neuron": None,
        "image_size": None,
        "classes": None,
        "amp": "off",
        "channels_last": False,
        "compile": False,
        "eval_examples": None,
        "stages": [],
    }
    assert load(trained.events_last).config.augment is True
    assert sorted(os.listdir(trained.trt / "checkpoints")) == ["best.pt", "epoch_0001.pt", "epoch_0002.pt", "last.pt"]


def test_a_hyperparameter_may_be_a_word(tmp_path):
    run("train", "--method", "trt", "-p", "penalize=hidden_weights", "-p", "decay=1", *SMALL, "--out", tmp_path / "run")
    found = json.loads((tmp_path / "run" / "config.json").read_text())["hyperparameters"]
    assert (found["penalize"], found["decay"]) == ("hidden_weights", 1.0)


# --- several checkpoints ---


def test_several_checkpoints_give_one_table_and_one_figure_of_each_kind(trained, measured):
    written = "fisher_epoch_0001.json fisher_epoch_0002.json fisher_last.json fisher.csv".split()
    written += [f"{name}.{kind}" for name in ("fisher_trace", "information_centroid") for kind in ("png", "pdf")]
    assert measured.done.stdout.splitlines()[-8:] == [str(measured.folder / name) for name in written]
    assert sorted(os.listdir(measured.folder)) == sorted(written)
    assert all(whole_file(measured.folder / name) for name in written[4:])
    table = pd.read_csv(measured.folder / "fisher.csv")
    parts = [results.load(measured.folder / name) for name in written[:3]]
    pd.testing.assert_frame_equal(table, results.combine(parts), check_dtype=False)
    assert table["epoch"].unique().tolist() == [1, 2, 3]
    assert table["method"].unique().tolist() == ["trt"]


def test_checkpoints_of_a_run_share_their_examples(trained, tmp_path, monkeypatch):
    read = []

    def load_split(config, split, **options):
        read.append(options["num_examples"])
        return system.load_split(config, split, **options)

    monkeypatch.setattr("snn_probe.measurement.load_split", load_split)
    run("timesteps", *trained.epochs, "--num-examples", 8, "--no-figure", "--out", tmp_path)
    assert read == [None, 8]


def test_checkpoints_of_several_runs_are_told_apart(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("fisher", trained.last, trained.events_last, *FISHER)
    assert sorted(os.listdir(tmp_path / "reports" / "trt+1")) == [
        "fisher.csv",
        "fisher_events_last.json",
        "fisher_trace.pdf",
        "fisher_trace.png",
        "fisher_trt_last.json",
    ]
    table = pd.read_csv(tmp_path / "reports" / "trt+1" / "fisher.csv")
    assert table.groupby("run", sort=False)["dataset"].first().to_dict() == {"trt": "digits", "events": "event-digits"}


def test_runs_whose_folders_have_the_same_name_do_not_overwrite_each_other(trained, tmp_path):
    copies = []
    for number, original in enumerate((trained.last, trained.epochs[0])):
        copies.append(tmp_path / str(number) / "run" / "checkpoints" / "last.pt")
        copies[-1].parent.mkdir(parents=True)
        copies[-1].write_bytes(original.read_bytes())
    run("fisher", *copies, *FISHER, "--out", tmp_path / "out", "--no-figure")
    found = [results.load(tmp_path / "out" / f"fisher_{name}.json").source["epoch"] for name in ("last", "last_2")]
    assert found == [3, 1]


def test_a_checkpoint_given_twice_is_refused_before_anything_is_measured(trained, tmp_path):
    again = trained.last.parent / ".." / "checkpoints" / trained.last.name
    said = failed("fisher", trained.last, again, *FISHER, "--out", tmp_path, status=2)
    assert said == f"{trained.last} is given twice; give each file once."
    assert not list(tmp_path.iterdir())


# --- what is printed and written ---


def test_json_is_all_there_is_on_stdout(trained, tmp_path):
    done = run("fisher", trained.last, *FISHER, "--json", "--out", tmp_path)
    assert json.loads(done.stdout) == json.loads((tmp_path / "fisher_last.json").read_text())
    assert json.loads(done.stdout)["format"] == "snn_probe.result/1"
    written = [str(tmp_path / f"fisher_{name}") for name in ("last.json", "trace.png", "trace.pdf")]
    assert done.stderr.splitlines() == written


def test_json_of_several_results_is_a_list(trained, tmp_path):
    done = run("fisher", *trained.epochs, *FISHER, "--json", "--no-figure", "--out", tmp_path)
    found = json.loads(done.stdout)
    assert [result["source"]["epoch"] for result in found] == [1, 2]
    assert found == [json.loads((tmp_path / f"fisher_epoch_000{n}.json").read_text()) for n in (1, 2)]


@pytest.mark.parametrize("command", ["fisher", "hessian", "gradients", "landscape", "timesteps", "activity"])
def test_every_probe_prints_strict_json_and_nothing_else(trained, tmp_path, command):
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    more = {"landscape": ("--points", 3), "hessian": ("--quantity", "trace", "--num-probes", 2)}.get(command, ())
    done = run(command, trained.last, *FISHER, *more, "--json", "--no-figure", "--out", tmp_path)
    found = json.loads(done.stdout, parse_constant=refuse)
    assert found["format"] == "snn_probe.result/1" and found["source"]["run"] == "trt" and found["table"]
    (saved,) = tmp_path.glob("*.json")
    assert found == json.loads(saved.read_text())


def test_no_figure_writes_the_results_only(trained, tmp_path):
    done = run("fisher", trained.last, *FISHER, "--no-figure", "--out", tmp_path / "new" / "place")
    assert os.listdir(tmp_path / "new" / "place") == ["fisher_last.json"]
    assert done.stdout.splitlines()[-1] == str(tmp_path / "new" / "place" / "fisher_last.json")
    assert "information centroid" in done.stdout and done.stderr == ""


# --- figure ---


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_figure_of_stored_results(measured, tmp_path, suffix):
    out = tmp_path / "new" / f"figure{suffix}"
    files = [measured.folder / f"fisher_{name}.json" for name in ("epoch_0001", "last")]
    assert run("figure", *files, "-o", out, "--width", "6.75in").stdout == f"{out}\n"
    assert whole_file(out)


def test_figure_by_name(measured, tmp_path):
    files = sorted(measured.folder.glob("*.json"))
    for name in ("fisher_trace", "information_centroid"):
        run("figure", *files, "--figure", name, "-o", tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").read_bytes() == (measured.folder / f"{name}.png").read_bytes()
    assert (tmp_path / "fisher_trace.png").read_bytes() != (tmp_path / "information_centroid.png").read_bytes()


def test_learning_curves_from_runs_folders_or_their_metrics(trained, tmp_path):
    run("figure", trained.trt, trained.events, "-o", tmp_path / "folders.svg")
    run("figure", trained.trt / "metrics.csv", trained.events / "metrics.csv", "-o", tmp_path / "files.svg")
    run("figure", trained.trt, trained.events, "--figure", "loss_curves", "-o", tmp_path / "loss.svg")
    drawn = {name: (tmp_path / f"{name}.svg").read_text() for name in ("folders", "files", "loss")}
    # The identifiers inside an SVG differ from one to the next.
    plain = {name: re.sub(r"#?[pm][0-9a-f]{10}|DejaVuSans-\w+", "", text) for name, text in drawn.items()}
    assert plain["folders"] == plain["files"] != plain["loss"]


# --- show ---


def test_show_says_what_a_checkpoint_holds(trained):
    lines = run("show", trained.last).stdout.splitlines()
    assert lines[0] == f"{trained.last}: checkpoint"
    facts = dict(line.split(None, 1) for line in lines[1:] if len(line.split(None, 1)) == 2)
    card = load(trained.last).card
    weights = sum(parameter.numel() for parameter in build_model(load(trained.last)).parameters())
    assert facts["run"] == "trt" and facts["kind"] == "last" and facts["epoch"] == "3"
    assert facts["method"] == "trt" and facts["hyperparameters.decay"] == "0.5"
    assert facts["parameters"] == str(weights)
    assert facts["sha256"] == card["sha256"]
    assert float(facts["metrics.test_accuracy"]) == pytest.approx(card["metrics"]["test_accuracy"], rel=1e-5)
    assert facts["torch"] == card["environment"]["torch"]


def test_show_says_what_a_result_holds(measured):
    text = run("show", measured.epoch1).stdout
    assert text.startswith(f"{measured.epoch1}: result of fisher_trace\n  measured on ")
    assert re.search(r"^  measured on +trt, epoch 1$", text, re.MULTILINE)
    assert re.search(r"^  group_size +1$", text, re.MULTILINE)
    for layer in results.load(measured.epoch1).table["layer"].unique():
        assert re.search(rf"^ +{re.escape(layer)} +1 ", text, re.MULTILINE)


def test_show_of_a_result_that_says_nothing_of_itself_shows_its_first_rows(tmp_path):
    results.save(results.Result("mine", pd.DataFrame({"x": [n / 2 for n in range(15)]}), {}), tmp_path / "mine.json")
    lines = run("show", tmp_path / "mine.json").stdout.splitlines()
    assert lines[0] == f"{tmp_path / 'mine.json'}: result of mine"
    assert [line.split() for line in lines[1:]] == [
        ["x"],
        *([str(n / 2)] for n in range(12)),
        ["...", "3", "more", "rows"],
    ]


def test_show_says_what_a_runs_folder_holds(trained):
    lines = run("show", trained.trt).stdout.splitlines()
    assert lines[0] == f"{trained.trt}: run"
    assert any(line.split() == ["method", "trt"] for line in lines)
    for name in ("checkpoints/best.pt", "checkpoints/epoch_0001.pt", "config.json", "metrics.csv", "resume.pt"):
        assert any(re.fullmatch(rf"  {re.escape(name)}  \d+ KiB", line) for line in lines)


def test_show_as_json(trained, measured):
    """The result's own file, the whole card, the run's configuration and files; nothing else on stdout."""
    assert json.loads(run("show", "--json", measured.epoch1).stdout) == json.loads(measured.epoch1.read_text())
    shown = json.loads(run("show", "--json", trained.last).stdout)
    assert shown["card"] == load(trained.last).card and shown["format"] == "snn_probe.checkpoint/1"
    assert shown["parameters"] == sum(p.numel() for p in build_model(load(trained.last)).parameters())
    shown = json.loads(run("show", "--json", trained.trt).stdout)
    assert shown["config"] == json.loads((trained.trt / "config.json").read_text())
    assert shown["files"]["metrics.csv"] == (trained.trt / "metrics.csv").stat().st_size
    assert set(shown["files"]) == {str(p.relative_to(trained.trt)) for p in trained.trt.rglob("*") if p.is_file()}


def test_show_as_json_has_null_for_nan(tmp_path):
    table = pd.DataFrame({"x": [0.5, float("nan"), float("inf")]})
    results.save(results.Result("mine", table, {"tol": float("nan")}), tmp_path / "mine.json")

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    shown = json.loads(run("show", "--json", tmp_path / "mine.json").stdout, parse_constant=refuse)
    assert shown["table"] == {"x": [0.5, None, "Infinity"]} and shown["settings"] == {"tol": None}
    said = f"{tmp_path} holds no config.json; give a run's folder, a checkpoint or a result."
    assert failed("show", "--json", tmp_path) == said


# --- resume ---


def metrics_of(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def test_a_finished_run_resumed_reports_and_changes_nothing(trained):
    before = {path: path.read_bytes() for path in trained.trt.rglob("*") if path.is_file()}
    done = run("train", "--resume", "--out", trained.trt)
    assert done.stderr == "" and done.stdout.startswith(f"{trained.trt}/checkpoints/last.pt  epoch 3 (end of training)")
    assert {path: path.read_bytes() for path in trained.trt.rglob("*") if path.is_file()} == before


def test_resume_needs_to_be_told_only_which_run(tmp_path, monkeypatch):
    """Options not given are those the run was begun with, wherever its folder is."""
    monkeypatch.chdir(tmp_path)
    begun = ["--method", "trt", "-p", "decay=0.5", *SMALL]
    run("train", *begun)
    folder = tmp_path / "trained_models" / "digits-tiny-trt-seed0"
    for arguments in (
        ["--method", "trt"],
        ["--out", folder],
        ["--method", "trt", "-p", "decay=0.5", "--epochs", "3"],
        begun,
    ):
        done = run("train", "--resume", *arguments)
        assert done.stderr == "" and "last.pt  epoch 3" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--epochs", 9], "(epochs 3 -> 9)"),
        (["--augment", "--seed", 1], "(augment False -> True, seed 0 -> 1)"),
        (
            ["-p", "strength=0.5"],
            "(hyperparameters {'strength': 1e-05, 'decay': 0.5, 'epsilon': 1e-05, 'mse_weight': 0.05, "
            "'penalize': 'non_bias'} -> {'strength': 0.5, 'decay': 0.5, 'epsilon': 1e-05, 'mse_weight': 0.05, "
            "'penalize': 'non_bias'})",
        ),
        (
            ["--method", "sdt"],
            "(method 'trt' -> 'sdt', hyperparameters {'strength': 1e-05, 'decay': 0.5, 'epsilon': 1e-05, "
            "'mse_weight': 0.05, 'penalize': 'non_bias'} -> {})",
        ),
    ],
    ids=str,
)
def test_resume_with_another_configuration_names_the_difference(trained, arguments, said):
    assert failed("train", "--resume", "--out", trained.trt, *arguments) == (
        f"The run in {trained.trt} has another configuration {said}; resume it as it was begun, "
        "choose another folder with --out, or let it go on otherwise with --override (override=True)."
    )


def test_a_taken_folder_is_refused(trained):
    assert failed("train", *SMALL, "--out", trained.trt) == (
        f"{trained.trt} already holds a run; continue it with --resume (resume=True), or choose another folder with "
        "--out."
    )


def test_a_damaged_configuration_is_a_failure_and_not_wrong_usage(tmp_path):
    (tmp_path / "config.json").write_text("{")
    said = f"{tmp_path / 'config.json'} cannot be read as JSON; restore it or choose another folder with --out."
    assert failed("train", "--resume", "--out", tmp_path) == said


# --- wrong usage: status 2 ---

WRONG_USAGE = {
    (
        "train",
        "--method",
        "sgd",
    ): "method is 'sgd'; give one of 'sdt', 'tet', 'trt', or package.module:name of your own.",
    (
        "train",
        "--dataset",
        "mnist",
    ): f"dataset is 'mnist'; give one of {', '.join(map(repr, DATASETS))}, package.module:name "
    "of your own, or a folder of images or frames by class.",
    ("train", "--num-steps", 0): "num_steps is 0; give a whole number of at least 1.",
    ("train", "--epochs", -1): "epochs is -1; give a whole number of at least 1.",
    ("train", "--batch-size", 0): "batch_size is 0; give a whole number of at least 1.",
    ("train", "--learning-rate", "nan"): "learning_rate is nan; give a finite number above 0.",
    ("train", "--train-examples", 0): "train_examples is 0; give a whole number of at least 1.",
    ("train", "--seed", -1): "seed is -1; give a whole number of at least 0.",
    ("train", "-p", "decay=0.5"): "sdt has no hyperparameter 'decay'; it has none.",
    ("train", "--method", "trt", "-p", "decay=fast"): "decay is 'fast'; give a finite number of at least 0.",
    ("train", "--method", "trt", "-p", "decay=nan"): "decay is nan; give a finite number of at least 0.",
    ("train", "-p", "decay"): "Invalid value for '-p': 'decay' is not NAME=VALUE; write for example -p decay=0.5.",
    ("train", "-p", "=1"): "Invalid value for '-p': '=1' is not NAME=VALUE; write for example -p decay=0.5.",
    ("train", "--save-epochs", "1,x"): (
        "Invalid value for '--save-epochs': '1,x' is not a list of epochs; write for example 1,5,20."
    ),
    ("train", "--save-epochs", "1,21"): "--save-epochs has 21; give epochs from 1 to 20.",
    ("train", "--save-epochs", "0"): "--save-epochs has 0; give epochs from 1 to 20.",
    ("train", "--epochs", "many"): "Invalid value for '--epochs': 'many' is not a valid integer.",
    ("fisher",): "Give CKPT, or a network by one --model NAME [--weights FILE] [--data NAME].",
    ("fisher", "x.pt", "--group-size", 0): "Invalid value for '--group-size': 0 is not in the range x>=1.",
    ("fisher", "x.pt", "--split", "all"): (
        "Invalid value for '--split': 'all' is not one of 'train', 'validation', 'test'."
    ),
    ("figure", "x.json"): "Missing option '-o' / '--out'.",
    ("figure", "x.json", "-o", "x.jpg"): "-o is 'x.jpg'; end it in .pdf, .png or .svg.",
    (
        "figure",
        "x.json",
        "-o",
        "x.pdf",
        "--width",
        "wide",
    ): "Invalid value for '--width': 'wide' is no width; give inches from 1 to 20, as 3.25 or 3.25in.",
    (
        "figure",
        "x.json",
        "-o",
        "x.pdf",
        "--width",
        "0.2in",
    ): "Invalid value for '--width': '0.2in' is no width; give inches from 1 to 20, as 3.25 or 3.25in.",
    ("figure", "x.json", "-o", "x"): "-o is 'x'; end it in .pdf, .png or .svg.",
    ("shows",): "No such command 'shows'. Did you mean 'show'?",
}


@pytest.mark.parametrize("arguments", WRONG_USAGE, ids=lambda arguments: " ".join(map(str, arguments)))
def test_wrong_usage_is_one_sentence_status_2_and_writes_nothing(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    assert failed(*arguments, status=2) == WRONG_USAGE[arguments]
    assert os.listdir(tmp_path) == []


def test_unknown_network_is_wrong_usage(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert failed("train", "--model", "resnet1000", status=2).startswith("model is 'resnet1000'; give one of 'tiny'")


def test_a_figure_these_files_do_not_allow_is_wrong_usage(measured, tmp_path):
    said = failed("figure", measured.epoch1, "--figure", "loss_curves", "-o", tmp_path / "x.pdf", status=2)
    assert said == "--figure is 'loss_curves'; these files allow fisher_trace."


# --- failures: status 1 ---


@pytest.mark.parametrize("command", [("fisher", "x.pt"), ("show", "x.pt"), ("show", "no folder")])
def test_missing_checkpoint(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    advice = (
        "run's folder, a checkpoint or a result"
        if command[0] == "show"
        else "checkpoint file such as <run>/checkpoints/last.pt"
    )
    assert failed(*command) == f"{command[1]} does not exist; give a {advice}."
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("command", [("show", "x.json"), ("figure", "x.json", "-o", "x.pdf")])
def test_missing_result(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    advice = (
        "a run's folder, a checkpoint or a result" if command[0] == "show" else "the path of a saved snn_probe result"
    )
    assert failed(*command).rstrip(".") == f"x.json does not exist; give {advice}"
    assert os.listdir(tmp_path) == []


def test_truncated_checkpoint(trained, tmp_path):
    path = tmp_path / "half.pt"
    path.write_bytes(trained.last.read_bytes()[:40_000])
    for command in ("fisher", "show"):
        assert re.search(r"half\.pt is truncated or not a checkpoint", failed(command, path))


def test_foreign_checkpoint(tmp_path):
    torch.save({"weight": torch.ones(3)}, tmp_path / "foreign.pt")
    said = "is a PyTorch file but not a snn_probe checkpoint; give a file that `snnprobe train` wrote, or a network with these weights,"
    path = tmp_path / "foreign.pt"
    assert failed("fisher", path) == f"{path} {said} --model MODULE:FACTORY --weights {path}."


def test_checkpoint_of_a_later_format(tmp_path):
    torch.save({"format": "snn_probe.checkpoint/2"}, tmp_path / "later.pt")
    assert failed("fisher", tmp_path / "later.pt").endswith(
        "later than 'snn_probe.checkpoint/1' that this snn_probe reads; upgrade it."
    )


class Runs:
    def __init__(self, marker):
        self.command = f"touch '{marker}'"

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("command", ["fisher", "show"])
def test_checkpoint_that_tries_to_run_code(tmp_path, command):
    torch.save({"format": checkpoints.FORMAT, "card": "{}", "state_dict": Runs(tmp_path / "it ran")}, tmp_path / "x.pt")
    assert "so it was not loaded and none of its code was run; give a file that" in failed(command, tmp_path / "x.pt")
    assert os.listdir(tmp_path) == ["x.pt"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"metrics": []}, "has a card that lacks or misstates metrics; use another copy."),
        ({"run": None}, "has a card that lacks or misstates run; use another copy."),
        ({"network": {"input_shape": [1, 8, 8], "num_classes": 10**9, "temporal": False}}, None),
    ],
    ids=["metrics", "run", "network"],
)
@pytest.mark.parametrize("command", ["fisher", "show"])
def test_checkpoint_with_a_hostile_card(trained, tmp_path, command, changed, said):
    good = load(trained.last)
    card = json.dumps({**good.card, **changed})
    torch.save({"format": checkpoints.FORMAT, "card": card, "state_dict": dict(good.state_dict)}, tmp_path / "x.pt")
    if said is None and command == "show":
        assert run("show", tmp_path / "x.pt").stdout.startswith(f"{tmp_path}/x.pt: checkpoint")
    else:
        said = said or "The checkpoint's weights do not fit the network 'tiny' of its card: "
        assert said in failed(command, tmp_path / "x.pt")


def test_more_examples_than_there_are(trained, tmp_path):
    said = failed("fisher", trained.last, "--num-examples", 41, "--out", tmp_path / "out")
    assert said == "--num-examples is 41, but the train split of this run has 40 examples; give at most that."
    said = failed("fisher", trained.last, "--num-examples", 361, "--split", "test", "--out", tmp_path / "out")
    assert said == "--num-examples is 361, but the test split of this run has 360 examples; give at most that."
    said = failed("train", "--train-examples", 9999, "--out", tmp_path / "out")
    assert said.startswith("num_examples is 9999, but the train split of digits has 1258 examples; give ")
    assert os.listdir(tmp_path) == []


def test_unwritable_output_folder(trained, tmp_path):
    way = tmp_path / "way"
    way.write_text("old")
    ending = "remove it or choose another folder"
    for name, arguments in {
        "run/.lock": ("train", *SMALL, "--out", way / "run"),
        "fisher_last.json": ("fisher", trained.last, *FISHER, "--no-figure", "--out", way),
        "x.pdf": ("figure", trained.trt, "-o", way / "x.pdf"),
    }.items():
        said = failed(*arguments) if name != "fisher_last.json" else run(*arguments, status=1).stderr.strip()
        assert re.search(
            rf"cannot write {re.escape(str(way / name))}: a file stands where the folder .*; {ending}$", said
        )
    assert way.read_text() == "old"


def test_training_that_diverges(tmp_path):
    said = failed("train", *SMALL, "--learning-rate", "3e37", "--out", tmp_path / "run")
    assert re.fullmatch(
        r"the result of layer 'net.conv2' is not finite \(loss inf\) in epoch 1, step 2; the step was not taken and .*",
        said,
    )


def test_results_of_different_probes_cannot_share_a_figure(measured, tmp_path):
    results.save(results.Result("mine", pd.DataFrame({"x": [1.5]}), {}), tmp_path / "mine.json")
    said = failed("figure", measured.epoch1, tmp_path / "mine.json", "-o", tmp_path / "x.pdf")
    assert said == "combine: got results of fisher_trace and mine; give one or more results of a single probe"


def test_results_that_no_figure_is_known_of(tmp_path):
    results.save(results.Result("mine", pd.DataFrame({"x": [1.5]}), {}), tmp_path / "mine.json")
    said = failed("figure", tmp_path / "mine.json", "-o", tmp_path / "x.pdf")
    assert said == "There is no figure of 'mine' results; give results of a probe that has one."


def test_runs_and_results_cannot_share_a_figure(trained, measured, tmp_path):
    said = failed("figure", trained.trt, measured.epoch1, "-o", tmp_path / "x.pdf")
    assert said == "Runs and results cannot share a figure; give either metrics.csv files or RESULT.json files."


def test_different_estimators_cannot_share_a_figure(trained, measured, tmp_path):
    run("fisher", trained.last, *FISHER, "--group-size", 4, "--no-figure", "--out", tmp_path)
    said = failed("figure", measured.epoch1, tmp_path / "fisher_last.json", "-o", tmp_path / "x.pdf")
    assert said == (
        "These fisher_trace results differ in group_size, so they cannot share an axis; draw them in separate figures."
    )
    run("figure", tmp_path / "fisher_last.json", "-o", tmp_path / "x.svg")
    assert whole_file(tmp_path / "x.svg")


def test_a_fisher_result_without_its_settings_is_refused(measured, tmp_path):
    result = results.load(measured.epoch1)
    results.save(results.Result("fisher_trace", result.table, {}, result.source), tmp_path / "mine.json")
    said = failed("figure", tmp_path / "mine.json", "-o", tmp_path / "x.pdf")
    assert said == "A fisher_trace result does not say its 'group_size'; measure it again."


def test_a_folder_without_metrics(tmp_path):
    said = f"{tmp_path} holds no run, for it has no config.json; give a run's folder."
    assert failed("figure", tmp_path, "-o", tmp_path / "x.pdf") == said
    (tmp_path / "config.json").write_text("{")
    said = f"{tmp_path / 'config.json'} cannot be read as JSON; restore it or choose another folder with --out."
    assert failed("figure", tmp_path, "-o", tmp_path / "x.pdf") == said
    (tmp_path / "config.json").write_text("{}")
    said = failed("figure", tmp_path, "-o", tmp_path / "x.pdf")
    assert re.fullmatch(
        rf"{tmp_path}/metrics\.csv cannot be read \(.*\); give a run's folder or its metrics\.csv\.", said
    )


def test_show_of_a_folder_that_is_no_run(tmp_path):
    assert (
        failed("show", tmp_path) == f"{tmp_path} holds no config.json; give a run's folder, a checkpoint or a result."
    )


def test_what_nobody_foresaw_is_one_sentence_too(monkeypatch, tmp_path):
    def broken(path):
        raise KeyError("surprise")

    monkeypatch.setattr("snn_probe.commands.show.describe", broken)
    said = "KeyError: 'surprise'; run snnprobe --debug for the traceback, and please report it."
    assert failed("show", tmp_path) == said


def test_debug_lets_the_error_through(tmp_path):
    done = CliRunner().invoke(main, ["--debug", "show", str(tmp_path / "x.pt")])
    assert type(done.exception) is ValueError and "does not exist" in str(done.exception)
    assert done.exit_code == 1 and done.output == ""


def test_the_commands_of_the_design_are_there():
    assert {"train", "fisher", "figure", "show"} <= set(main.commands)


@pytest.mark.parametrize("command", main.commands)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_of_every_command_is_help_and_no_error(command, option):
    done = run(command, option)
    assert done.stderr == "" and done.stdout.startswith(f"Usage: main {command} ")


# --- in a process of its own ---


def process(*arguments):
    return subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, timeout=120)


def test_version_as_a_module():
    done = process("-m", "snn_probe", "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"snnprobe, version {snn_probe.__version__}\n", "")


HEAVY = "torch", "pandas", "matplotlib", "numpy", "scipy", "sklearn", "spikingjelly", "seaborn"


@pytest.mark.parametrize("what", ["import snn_probe", "--help", "train --help", "fisher --help"])
def test_importing_and_help_are_light_and_take_less_than_a_second(what):
    if what.startswith("import"):
        program = what
    else:
        program = f"from snn_probe.cli import main; main({what.split()!r}, standalone_mode=False)"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = process("-c", f"{program}\nimport sys\nprint([name for name in {HEAVY!r} if name in sys.modules])")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "[]"
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0  # of the processor


def test_wrong_usage_ends_with_status_2():
    done = process("-m", "snn_probe", "nonsense")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.splitlines()[-1] == "Error: No such command 'nonsense'."


def test_failure_ends_with_status_1_and_a_traceback_only_when_asked_for(tmp_path):
    command = ("figure", tmp_path / "x.json", "-o", tmp_path / "x.pdf")
    said = f"{tmp_path / 'x.json'} does not exist; give the path of a saved snn_probe result"
    quiet, debug = process("-m", "snn_probe", *command), process("-m", "snn_probe", "--debug", *command)
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (1, "", f"Error: {said}\n")
    assert debug.returncode == 1 and debug.stdout == ""
    assert "Traceback (most recent call last)" in debug.stderr and debug.stderr.endswith(f"ValueError: {said}\n")


SLOW = """
import time
from snn_probe import training
evaluate = training.evaluate
training.evaluate = lambda *arguments: (time.sleep(0.4), evaluate(*arguments))[1]
from snn_probe.cli import main
main()
"""
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 138}


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """Runs of three epochs in processes that are sent a signal in the second: folder, status and output by signal."""
    folder = tmp_path_factory.mktemp("interrupted")
    running = {}
    for number in STATUS:
        run_folder = folder / number.name / "run"
        command = [sys.executable, "-c", SLOW, "train", "--method", "tet", *SMALL, "--out", str(run_folder)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        running[number] = SimpleNamespace(folder=run_folder, child=child, signalled=False)
    deadline = time.monotonic() + 120
    while not all(one.signalled for one in running.values()):
        for number, one in running.items():
            late = one.child.poll() is not None or time.monotonic() > deadline
            if not one.signalled and ((one.folder / "resume.pt").exists() or late):
                one.child.send_signal(number)
                one.signalled = True
        time.sleep(0.01)
    for one in running.values():
        one.stdout, one.stderr = one.child.communicate(timeout=60)
        one.status = one.child.returncode
    return running


@pytest.mark.parametrize("number", STATUS, ids=lambda number: number.name)
def test_an_interrupted_run_says_so_and_goes_on_with_resume(interrupted, tmp_path, number):
    stopped = interrupted[number]
    assert stopped.status == STATUS[number], stopped.stderr
    assert stopped.stdout == "" and "Traceback" not in stopped.stderr
    assert stopped.stderr.endswith("Interrupted; what was saved before is complete.\n")
    epochs = load(stopped.folder / "checkpoints" / "last.pt").epoch
    assert epochs in (1, 2) and len(metrics_of(stopped.folder)) == epochs
    assert not list(stopped.folder.rglob("*.tmp"))

    run("train", "--resume", "--out", stopped.folder)
    run("train", "--method", "tet", *SMALL, "--out", tmp_path / "run")
    assert metrics_of(stopped.folder) == metrics_of(tmp_path / "run")
    last = [load(folder / "checkpoints" / "last.pt").card["sha256"] for folder in (stopped.folder, tmp_path / "run")]
    assert last[0] == last[1]


def test_interrupt_and_termination_in_this_process_have_their_status(monkeypatch, tmp_path):
    for number, status in STATUS.items():
        handler = signal.getsignal(number)
        monkeypatch.setattr("snn_probe.commands.show.describe", lambda path, number=number: signal.raise_signal(number))
        done = CliRunner().invoke(main, ["show", str(tmp_path)])
        assert done.exit_code == status
        assert signal.getsignal(number) is handler


# --- progress ---


class Terminal:
    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text

    def flush(self):
        pass

    def isatty(self):
        return True


def test_progress_is_silent_where_nobody_watches_and_it_is_quick(capsys):
    shown = Progress([1, 2, 3], "epoch 1/2")
    assert len(shown) == 3
    assert list(shown) == [1, 2, 3] == list(shown)
    assert capsys.readouterr() == ("", "")


def test_progress_is_logged_now_and_then(caplog, capsys, monkeypatch):
    caplog.set_level("INFO", "snn_probe.machine.progress")
    clock = iter(range(0, 10_000, 20))
    monkeypatch.setattr("snn_probe.machine.progress.time.monotonic", lambda: next(clock))
    assert list(Progress(iter("abcde"), "fisher last", total=5)) == list("abcde")
    assert capsys.readouterr() == ("", "")
    # 20 s an item, the first 40: the record is due after 30 s, so at every second item.
    assert caplog.messages == ["fisher last: 1/5, about 3 min left", "fisher last: 3/5, about 40 s left"]


def test_progress_on_a_terminal_is_a_bar_on_stderr(capsys, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(Progress([1, 2, 3], "epoch 1/2")) == [1, 2, 3]
    assert "epoch 1/2" in terminal.text and "/3" in terminal.text
    assert capsys.readouterr().out == ""


def test_every_probe_command_on_two_checkpoints(trained, tmp_path):
    """Results, one table and figures of each; of several quantities too, --json is one document."""
    few = ("--num-examples", 12, "--batch-size", 5, "--out", tmp_path)
    both = (trained.trt / "checkpoints" / "epoch_0001.pt", trained.last)
    expected = {
        "hessian": ("hessian_eigenvalues", "eigenvalues"), "gradients": ("gradients", "gradient_norms"),
        "landscape": ("landscape", "loss_line"), "timesteps": ("timesteps", "timestep_accuracy"),
        "activity": ("activity", "energy"),
    }  # fmt: skip
    for command, (name, figure) in expected.items():
        more = ("--points", 3) if command == "landscape" else ()
        run(command, *both, *more, *few)
        assert (tmp_path / f"{name}.csv").exists() and whole_file(tmp_path / f"{figure}.png"), command
        assert results.load(tmp_path / f"{name}_last.json").source["config"]["method"] == "trt"
    assert not list(tmp_path.glob("*.partial.json"))
    done = run("hessian", *both, "--quantity", "trace", "--quantity", "eigenvalues", "--no-figure", "--json", *few)
    assert [one["probe"] for one in json.loads(done.stdout)] == ["hessian_trace"] * 2 + ["hessian_eigenvalues"] * 2


def test_an_interrupted_landscape_is_continued(trained, tmp_path, monkeypatch):
    """Ctrl-C after some points; the next call measures the others only, and other settings start anew."""
    from snn_probe.probes import landscape

    measured = []
    original = landscape.measure

    def interrupted(*arguments):
        if len(measured) == 4:
            raise KeyboardInterrupt
        measured.append(1)
        return original(*arguments)

    grid = ("landscape", trained.last, "--points", 7, "--num-examples", 12, "--no-figure", "--out", tmp_path)
    monkeypatch.setattr(landscape, "measure", interrupted)
    run(*grid, status=130)
    assert (tmp_path / "landscape_last.partial.json").exists()
    monkeypatch.setattr(landscape, "measure", lambda *arguments: measured.append(1) or original(*arguments))
    run(*grid)
    assert len(measured) == 7 and not (tmp_path / "landscape_last.partial.json").exists()
    table = results.load(tmp_path / "landscape_last.json").table
    monkeypatch.setattr(landscape, "measure", original)
    run(*grid[:-1], tmp_path / "again")
    assert table.equals(results.load(tmp_path / "again" / "landscape_last.json").table)
