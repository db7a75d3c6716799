"""``snnprobe train`` and ``presets``: how options, presets and shorthands become a configuration."""

import json
import re

import pytest
from commands import failed, run

from snn_probe.config import RunConfig, Stage
from snn_probe.objectives import OBJECTIVES
from snn_probe.presets import PRESETS, preset

FEW = "--train-examples 20 --batch-size 16 --num-steps 2".split()


def configuration(folder, *options):
    """The configuration of a run of the command."""
    run("train", *options, "--out", folder)
    return RunConfig.from_dict(json.loads((folder / "config.json").read_text()))


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_whole_configuration_with_its_source(name):
    entry = PRESETS[name]
    config = RunConfig.from_dict(entry.options)
    assert RunConfig.from_dict(config.to_dict()) == config
    assert re.search(r"arXiv \d{4}\.\d{5}", entry.source) and entry.published
    assert config.learning_rate == 1e-3 and config.batch_size == 64


def test_settings_of_the_trt_paper():
    """The table of the paper's settings: strength, decay, MSE weight, T, network, and the neuron without leak."""
    table = {
        "trt-cifar10": ("resnet19", 6, 1e-5, 0.25, 0.05),
        "trt-imagenet100": ("sew-resnet34", 4, 5e-5, 0.5, 0.001),
        "trt-cifar10-dvs": ("vggsnn", 10, 5e-5, 0.5, 0.001),
        "trt-n-caltech101": ("vggsnn", 10, 5e-5, 0.5, 0.05),
    }
    for name, (model, steps, strength, decay, mse) in table.items():
        config = RunConfig.from_dict(PRESETS[name].options)
        found = config.hyperparameters
        assert (config.model, config.num_steps, config.epochs, config.method) == (model, steps, 300, "trt")
        assert (found["strength"], found["decay"], found["mse_weight"]) == (strength, decay, mse)
    assert RunConfig.from_dict(PRESETS["trt-imagenet100"].options).neuron_options().leak == 1.0
    assert not RunConfig.from_dict(PRESETS["trt-n-caltech101"].options).augment


def test_time_inheritance_and_the_switch_as_published():
    tit, switch = (RunConfig.from_dict(PRESETS[name].options) for name in ("tit-cifar100", "switch-cifar10-dvs"))
    assert [(s.epochs, s.num_steps, s.method, s.optimizer) for s in tit.stages] == [
        (300, 2, "tet", "restart"), (50, 6, "tet", "restart")]  # fmt: skip
    assert [(s.epochs, s.num_steps, s.method, s.optimizer) for s in switch.stages] == [
        (200, 10, "sdt", "restart"), (100, 10, "tet", "continue")]  # fmt: skip
    assert switch.hyperparameters["mse_weight"] == 0.001


def test_presets_are_listed_with_source_and_what_is_published():
    said = run("presets").stdout
    for name, entry in PRESETS.items():
        assert f"{name}\n" in said and entry.source in said and entry.published in said
    assert "tet T=2 for 300 epochs, then tet T=6 for 50 epochs" in said
    assert preset("tet-cifar10") is PRESETS["tet-cifar10"]


def test_the_command_line_overrides_a_preset(tmp_path):
    small = "--dataset digits --model tiny --epochs 1 --amp off -p decay=2 --neuron leak=0.25".split()
    found = configuration(tmp_path / "run", "--preset", "trt-imagenet100", *small, *FEW)
    assert (found.dataset, found.model, found.epochs, found.num_steps) == ("digits", "tiny", 1, 2)
    assert found.hyperparameters == {**OBJECTIVES["trt"](strength=5e-5, decay=2.0, mse_weight=0.001).__dict__}
    assert found.neuron["leak"] == 0.25 and found.augment and found.batch_size == 16


def test_another_method_leaves_the_presets_hyperparameters_behind(tmp_path):
    small = "--dataset digits --model tiny --epochs 1 --amp off --no-augment --method sdt".split()
    found = configuration(tmp_path / "run", "--preset", "trt-cifar10", *small, *FEW)
    assert (found.method, found.hyperparameters, found.augment) == ("sdt", {}, False)


def test_shorthands_are_stages(tmp_path):
    tit = configuration(tmp_path / "tit", "--tit", "1:2", "--epochs", 1, *FEW)
    assert tit.stages == (Stage(2, 1), Stage(1, 2)) and tit.epochs == 3
    switch = configuration(tmp_path / "switch", "--method", "tet", "--switch", "sdt:2", "--epochs", 3, *FEW)
    assert [(s.method, s.epochs, s.optimizer) for s in switch.stages] == [("sdt", 2, "restart"), ("tet", 1, "continue")]
    written = ("--stage", "epochs=1,num_steps=1", "--stage", "epochs=1,method=trt,decay=0.5,optimizer=continue")
    staged = configuration(tmp_path / "stages", *written, *FEW)
    assert (staged.stages[0], staged.stages[1].hyperparameters["decay"]) == (Stage(1, 1), 0.5)
    assert (staged.method, staged.num_steps) == ("trt", 2)


def test_network_and_precision_options_reach_the_configuration(tmp_path):
    options = "--model vggsnn --dataset event-digits --width 0.05 --neuron surrogate=atan --neuron detach_reset=true"
    found = configuration(
        tmp_path / "run", *options.split(), "--amp", "bf16", "--channels-last", "--epochs", 1, *FEW
    )  # fmt: skip
    assert (found.width, found.amp, found.channels_last, found.compile) == (0.05, "bf16", True, False)
    assert (found.neuron["surrogate"], found.neuron["detach_reset"], found.neuron["leak"]) == ("atan", True, 0.5)


def test_a_run_of_stages_is_resumed_with_its_own_stages(tmp_path):
    found = configuration(tmp_path / "run", "--tit", "1:1", "--epochs", 1, *FEW)
    run("train", "--resume", "--out", tmp_path / "run")
    run("train", "--resume", "--method", "sdt", "--out", tmp_path / "run")
    said = failed("train", "--resume", "--num-steps", 3, "--out", tmp_path / "run", status=2)
    assert said == "--num-steps is 3, but the stages make it 2; change the stages with --stage."
    assert found.epochs == 2


@pytest.mark.parametrize(
    "options",
    [
        "--tit 1:1 --epochs 1",
        "--tit 1:1",
        "--stage epochs=1 --stage epochs=1,method=tet",
        "--stage epochs=1,num_steps=1 --stage epochs=1,num_steps=3",
        "--method tet --switch sdt:1 --epochs 2",
    ],
)
def test_the_same_command_with_resume_is_the_same_run(tmp_path, monkeypatch, options):
    monkeypatch.setattr("snn_probe.training._epochs", lambda *arguments: iter(()))  # only the configuration counts
    monkeypatch.setattr("snn_probe.commands.train._report_training", lambda *arguments: None)
    begun = configuration(tmp_path / "run", *options.split(), "--train-examples", 20)
    assert configuration(tmp_path / "run", *options.split(), "--train-examples", 20, "--resume") == begun


def test_a_shorthand_takes_the_last_stage_of_a_preset(tmp_path, monkeypatch):
    monkeypatch.setattr("snn_probe.training._epochs", lambda *arguments: iter(()))
    monkeypatch.setattr("snn_probe.commands.train._report_training", lambda *arguments: None)
    small = "--preset tit-cifar100 --dataset digits --model tiny --no-augment --tit 2:10".split()
    found = configuration(tmp_path / "run", *small)
    assert [(stage.epochs, stage.num_steps) for stage in found.stages] == [(10, 2), (50, 6)]


WRONG = {
    "--device gpu": "Invalid value for '--device': 'gpu' is no device; give cpu, cuda or cuda:N.",
    "--device meta": "Invalid value for '--device': 'meta' is no device; give cpu, cuda or cuda:N.",
    "--preset mine": "There is no preset 'mine'; give one of trt-cifar10, ",
    "--tit 2:3 --switch sdt:2": "--stage, --tit and --switch exclude each other; give the stages with --stage.",
    "--tit two:3": "--tit begins with 'two'; give the timesteps before, for example 2:300.",
    "--tit 2": "Invalid value for '--tit': '2' is not 2:300; write for example 2:300.",
    "--switch sdt:20": "--switch after 20 epochs leaves none of 20; give fewer.",
    "--switch adam:2": "Stage 1: method is 'adam'; give one of 'sdt', 'tet', 'trt', or package.module:name of your own.",
    "--stage epochs=2": "stages has one stage; give method, num_steps and epochs instead, or at least two stages.",
    "--stage epochs": "Invalid value for '--stage': 'epochs' is not NAME=VALUE; write for example "
                      "epochs=300,num_steps=2,method=tet.",
    "--stage epochs=two": "Invalid value for '--stage': epochs is 'two'; give a whole number of at least 1.",
    "--preset tit-cifar100 --epochs 3": "--epochs is 3, but the stages make it 350; change the stages with --stage.",
    "--neuron leak": "Invalid value for '--neuron': 'leak' is not NAME=VALUE; write for example --neuron leak=0.5.",
    "--neuron tau=2": "neuron has unknown keys tau; allowed are leak, ",
    "--amp half": "amp is 'half'; give one of 'off', 'bf16', 'fp16'.",
    "--width 0": "width is 0.0; give a finite number above 0.",
    "--image-size 0": "image_size is 0; give a whole number of at least 1.",
}  # fmt: skip


@pytest.mark.parametrize("options", WRONG)
def test_wrong_usage_is_one_sentence_and_writes_nothing(tmp_path, options):
    assert failed("train", *options.split(), "--out", tmp_path / "run", status=2).startswith(WRONG[options])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--dataset cifar10", "the folder of the data sets is not known; give it with --data-root DIR"),
        ("--image-size 16", "image_size is 16, but digits is always 8x8 pixels; leave it out."),
        ("--model vggsnn", "input_shape is (1, 8, 8)"),
        ("--dataset cifar10 --data-root /nowhere", "/nowhere is no folder"),
    ],
)
def test_what_is_not_there_is_one_sentence_and_makes_no_run(tmp_path, monkeypatch, options, said):
    monkeypatch.delenv("SNNPROBE_DATA", raising=False)
    found = failed("train", *options.split(), "--epochs", 1, "--out", tmp_path / "run", status=1)
    assert said in found
    assert not (tmp_path / "run").exists()


def test_presets_as_json():
    found = json.loads(run("presets", "--json").stdout)
    assert list(found) == list(PRESETS)
    for name, entry in PRESETS.items():
        config = RunConfig.from_dict(entry.options).to_dict()
        assert found[name] == {
            "config": json.loads(json.dumps(config)), "source": entry.source, "published": entry.published
        }  # fmt: skip
