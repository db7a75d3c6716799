"""What the commands say of measurements and of one's own code: which examples, what was replaced, what is missing."""

import json

import numpy as np
import pytest
import torch
from commands import failed, run
from image_files import write_images
from own_code import own_place  # noqa: F401  the fixture place

from snn_probe import own
from snn_probe.data import DATASETS
from snn_probe.evaluation import fires
from snn_probe.models import MODELS
from snn_probe.own.objective import own_objective

NET, DATA = ("--model", "mynet:build"), ("--data", "mydata:load")
TINY = ("--model", "tiny", "--num-steps", 2, "--num-examples", 5, "--no-figure")
FEW = ("--epochs", 1, "--num-steps", 2, "--batch-size", 16)
SETS, NETWORKS = ", ".join(map(repr, DATASETS)), ", ".join(map(repr, MODELS))


# --- which examples, and what was replaced ---


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_result_says_its_examples(place, split):
    assert f"tiny  (tiny, on 5 examples of the {split} split)\n" in run("timesteps", *TINY, "--split", split).stdout


def test_frozen_parameters_are_named(place):
    (place / "mynet.py").write_text(
        "from torch import nn\nfrom snn_probe.models import build as make\n\n\n"
        "def build(input_shape, num_classes, num_steps):\n"
        "    net = make('tiny', input_shape=input_shape, num_classes=num_classes, num_steps=num_steps)\n"
        "    net.net[0].requires_grad_(False)\n    return net\n"
    )
    done = run("fisher", *NET, "--num-steps", 2, "--num-examples", 5, "--no-figure")
    assert "  frozen, and so left out: net.conv1.weight\n" in done.stdout
    assert "frozen" not in run("fisher", *TINY).stdout


def test_a_result_that_is_replaced_by_one_of_other_settings_is_named(place):
    line = ("landscape", *TINY, "--points", 3, "--out", "out")
    assert "was measured with other settings" not in run(*line).stderr + run(*line).stderr
    said = run(*line, "--split", "test", "--plane").stderr
    assert (
        "Warning: The result in out/landscape_tiny.json was measured with other settings (betas [0.0] -> "
        "[-1.0, 0.0, 1.0], split 'train' -> 'test') and is replaced; give another folder with --out to keep both.\n"
    ) in said


def test_a_result_of_another_run_is_named_too(place):
    from snn_probe.models import build

    for name in ("a", "b"):
        (place / name / "checkpoints").mkdir(parents=True)
        model = build("tiny", input_shape=(1, 8, 8), num_classes=10, num_steps=2)
        torch.save(model.state_dict(), place / f"{name}.pt")
    for name in ("a", "b"):
        (place / f"{name}.pt").rename(place / "w.pt")
        (place / "w.pt").rename(place / name / "w.pt")
        done = run("timesteps", *TINY, "--weights", f"{name}/w.pt", "--out", "out")
    assert "other settings" not in done.stderr  # both are called w
    run("train", "--epochs", 1, "--train-examples", 20, "--num-steps", 2, "--out", "one")
    run("train", "--epochs", 1, "--train-examples", 20, "--num-steps", 2, "--out", "two")
    common = ("--num-examples", 5, "--no-figure", "--out", "out")
    run("timesteps", "one/checkpoints/last.pt", *common)
    assert "(run 'one' -> 'two') and is replaced;" in run("timesteps", "two/checkpoints/last.pt", *common).stderr


# --- a network that never fires ---

SILENT = """
from spikingjelly.activation_based import layer, neuron, surrogate
from torch import nn
from snn_probe.temporal import from_spikingjelly


def build(num_steps, num_classes):
    lif = neuron.LIFNode(v_threshold=1e6, surrogate_function=surrogate.ATan())
    return from_spikingjelly(nn.Sequential(layer.Flatten(), layer.Linear(64, 8), lif, layer.Linear(8, num_classes)), num_steps)
"""


@pytest.mark.parametrize("probe", ["fisher", "landscape", "activity"])
def test_a_silent_network_is_warned_of(place, probe):
    (place / "mynet.py").write_text(SILENT)
    few = ("--points", 3) if probe == "landscape" else ()
    done = run(probe, *NET, "--num-steps", 2, "--num-examples", 20, "--no-figure", *few)
    assert done.stderr.count("Warning: No spiking layer of build fires in the first 16 examples.\n") == 1
    assert ("  net.2: 0.0000 spikes per neuron and timestep, it never fires\n" in done.stdout) == (probe == "activity")
    (place / "mydata.py").write_text(SILENT.replace("1e6", "0.1"))
    done = run(probe, "--model", "mydata:build", "--num-steps", 2, "--num-examples", 20, "--no-figure", *few)
    assert "fires" not in done.stderr + done.stdout


def test_fires_is_known_of_spiking_layers_alone():
    class Plain(torch.nn.Module):
        def forward(self, inputs):
            return inputs[None, :, :3]

    assert fires(Plain(), torch.zeros(2, 4))


# --- what there is, and what is one's own ---

YOUR_OWN = "package.module:name of your own"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("train", "--method", "tte"), f"method is 'tte'; give one of 'sdt', 'tet', 'trt', or {YOUR_OWN}."),
        (("fisher", "--model", "nosuch"), f"model is 'nosuch'; give one of {NETWORKS}, or {YOUR_OWN}."),
        (
            ("fisher", "--model", "tiny", "--data", "nosuch"),
            f"dataset is 'nosuch'; give one of {SETS}, {YOUR_OWN}, or a folder of images or frames by class.",
        ),
        (
            ("train", "--data", "photoz/"),
            f"dataset is 'photoz/', a folder that does not exist; give one of {SETS}, {YOUR_OWN}, or a folder of images "
            "or frames by class.",
        ),
        (
            ("data", "photoz/"),
            f"'photoz/' is no data set here; give one of {', '.join(DATASETS)}, MODULE:FACTORY of your own, or a folder "
            "of images or frames by class.",
        ),
    ],
)
def test_what_there_is_includes_your_own(place, arguments, said):
    assert failed(*arguments, status=2) == said


@pytest.mark.parametrize("command", [("show",), ("show", "--json")])
def test_show_of_nothing(place, command):
    said = "nosuch does not exist; give a run's folder, a checkpoint or a result."
    assert failed(command[0], "nosuch", *command[1:]) == said


def test_a_name_that_a_module_lacks_is_told_what_the_module_makes(place):
    said = failed("fisher", "--model", "mynet:nosuch")
    assert said.startswith(
        "mynet:nosuch: mynet has no 'nosuch'; it has build, network, number, raises, needs, no_module,"
    )


@pytest.mark.parametrize("name", ["theirs.pth", "theirs.safetensors"])
def test_weights_in_the_place_of_a_checkpoint(place, name):
    if name.endswith(".safetensors"):
        (place / name).write_bytes(b"whatever")
    else:
        torch.save({"w": torch.zeros(2)}, name)
    assert failed("fisher", name).endswith(
        "; give a file that `snnprobe train` wrote, or a network with these weights, --model MODULE:FACTORY --weights "
        f"{name}."
    )


def test_a_plane_of_a_run_without_epochs_is_refused_before_the_network_is_built(place, monkeypatch):
    run("train", "--epochs", 1, "--train-examples", 20, "--num-steps", 2, "--save-epochs", "1", "--out", "run")
    monkeypatch.setattr("snn_probe.measurement.build_model", None)
    said = failed("landscape", "run/checkpoints/epoch_0001.pt", "--along", "pca")
    assert said.endswith(
        "run/checkpoints has 0 epoch_*.pt from before epoch_0001.pt, and the plane of a run needs at least 2; train with "
        "--save-epochs 1,5,10,..."
    )


def test_resume_says_that_it_begins(place):
    common = ("--epochs", 1, "--train-examples", 20, "--num-steps", 2, "--resume", "--out", "runs/typo")
    assert "There is no run in runs/typo yet; starting a new one.\n" in run("train", *common).stderr
    assert "starting" not in run("train", *common).stderr


# --- data of one's own ---


def test_data_of_ones_own_are_described(place):
    done = run("data", "mydata:load", "mydata:streams", "--num-steps", 3)
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[1] == ["mydata:load", "images", "1x8x8", "4", "36", "4", "12", "13.3", "kB", "your", "own"]
    assert rows[2][:7] == ["mydata:streams", "events", "2x4x4", "4", "36", "4", "12"]
    (found,) = json.loads(run("data", "mydata:train_alone", "--json").stdout)
    assert found["counts"] == {"train": 36, "validation": 4, "test": 0} and found["input_shape"] == [1, 8, 8]
    assert failed("data", "mydata:one_class").startswith("mydata:one_class has one class; ")
    assert "mydata:load" not in own.allowed()


def write_frames(folder):
    for split in ("train", "test"):
        for name in ("a", "b"):
            (folder / split / name).mkdir(parents=True)
            for number in range(3):
                np.save(folder / split / name / f"{number}.npy", np.ones((2, 2, 4, 4), np.float32))


def test_folders_are_described(place):
    write_images(place / "photos" / "train", {"a": 3, "b": 3})
    write_images(place / "photos" / "test", {"a": 2, "b": 2})
    write_frames(place / "frames")
    done = run("data", "photos", "frames", "digits")
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[1][:4] == ["image-folder", "images", "3x32x32", "2"] and rows[1][6] == "4" and rows[1][-1] == "photos"
    assert rows[2][:4] == ["frame-folder", "events", "2x4x4", "2"] and rows[2][6] == "6" and rows[2][-1] == "frames"
    assert rows[3][0] == "digits" and len(rows) == 4
    (place / "empty").mkdir()
    said = "expected empty/train/CLASS/ and empty/test/CLASS/ (or val) with images, or frames (.npy, .npz), in them."
    assert failed("data", "empty") == f"empty has no image-folder: {said}"
    assert failed("fisher", "--model", "tiny", "--data", "empty").endswith(said)


@pytest.mark.parametrize("kind", ["image-folder", "frame-folder"])
def test_a_checkpoint_of_a_folder_says_that_the_folder_is_to_be_given_again(place, kind, monkeypatch):
    monkeypatch.delenv("SNNPROBE_DATA", raising=False)
    if kind == "image-folder":
        for split in ("train", "test"):
            write_images(place / "mine" / split, {"a": 4, "b": 4}, size=(8, 8))
    else:
        write_frames(place / "mine")
    run("train", "--data", "mine", "--epochs", 1, "--num-steps", 2, "--width", 0.25, "--out", "run")
    common = ("run/checkpoints/last.pt", "--num-examples", 2, "--no-figure")
    said = f"The data are a folder of your own ({kind}), and no file says where it lies; give it again with --data FOLDER (data_root)."
    assert failed("timesteps", *common) == said
    assert failed("train", "--resume", "--out", "run") == said
    run("timesteps", *common, "--data", "mine")


def test_a_factory_without_a_training_split_is_told_of_that_one(place):
    (place / "mydata.py").write_text(
        "import torch\n\n\ndef load():\n    return {'test': (torch.rand(6, 1, 8, 8), torch.arange(6) % 3)}\n"
    )
    said = "mydata:load gives no train split, only test; return it too."
    assert failed("train", *NET, *DATA, *FEW, "--out", "run") == said
    assert failed("timesteps", *NET, *DATA) == said


# --- an objective that is no mean ---

LOSSES = """
import torch
import torch.nn.functional as F


def summed(logits, labels, params):
    return F.cross_entropy(logits.mean(0), labels, reduction="sum")


def mean(logits, labels, params):
    return F.cross_entropy(logits.mean(0), labels) + sum(p.square().sum() for p in params.values())


def drawn(logits, labels, params):
    return F.cross_entropy(logits.mean(0) + torch.randn_like(logits[0]), labels)
"""


def test_an_objective_that_is_a_sum_is_refused_before_training(place):
    (place / "mydata.py").write_text(LOSSES)
    common = ("--epochs", 1, "--train-examples", 20, "--num-steps", 2, "--width", 0.25)
    said = failed("train", "--method", "mydata:summed", *common, "--out", "run")
    assert said.startswith("mydata:summed returned ") and said.endswith(
        " for the same examples twice over; return the mean over the examples, not their sum."
    )
    assert not (place / "run").exists()
    staged = ("--stage", "epochs=1", "--stage", "epochs=1,method=mydata:summed")
    assert failed("train", *staged, *common[2:], "--out", "run") == said
    for name in ("mean", "drawn"):
        run("train", "--method", f"mydata:{name}", *common, "--out", name)
    own.allow("mydata:summed")
    logits, labels = torch.randn(2, 3, 4), torch.arange(3)
    assert own_objective("mydata:summed", {})(logits, labels) > 0  # itself it is not judged
