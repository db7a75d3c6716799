"""A network, weights and data of the user's own by name: measured as the functions do, and no file has code run."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from commands import failed, run
from own_code import own_place  # noqa: F401  the fixture place

from snn_probe import own, results
from snn_probe.checkpoint import build_model, load
from snn_probe.config import RunConfig
from snn_probe.data import batches, describe
from snn_probe.data import load as load_data
from snn_probe.probes import fisher_trace
from snn_probe.system import build_network, load_split, network_of
from snn_probe.training import train

NET, DATA = ("--model", "mynet:build"), ("--data", "mydata:load")
FEW = ("--epochs", 1, "--num-steps", 2, "--batch-size", 16)
CONFIG = RunConfig(model="mynet:build", dataset="mydata:load", num_steps=2, epochs=1, batch_size=16)
PROBES = ("fisher", "hessian", "gradients", "landscape", "timesteps", "activity")


def refusal(name, option):
    return (
        f"The configuration names '{name}', code that is no part of this program and is never run because a file says "
        f"so; if you know and trust it, give {option} {name} (from Python: snn_probe.own.allow('{name}'))."
    )


@pytest.fixture
def trained(place):
    run("train", *NET, *DATA, *FEW, "--out", "run")
    return place / "run" / "checkpoints" / "last.pt"


@pytest.fixture
def forgotten(trained, place):
    """A checkpoint whose modules nobody has imported in this process."""
    for name in ("mynet", "mydata"):
        del sys.modules[name]
    (place / "imported").unlink()
    return trained


@pytest.fixture
def weights(place):
    """Weights of mynet:build on mydata:load, other than any seed draws."""
    own.allow("mynet:build")
    own.allow("mydata:load")
    model = build_network(CONFIG, network_of(CONFIG))
    own._allowed.clear()
    generator = torch.Generator().manual_seed(7)
    return {name: 0.3 * torch.randn(t.shape, generator=generator) for name, t in model.state_dict().items()}


# --- training, and probing what was trained ---


def test_a_checkpoint_records_the_names_and_is_probed_when_they_are_said_again(trained, tmp_path):
    card = load(trained).card
    assert (card["config"]["model"], card["config"]["dataset"]) == ("mynet:build", "mydata:load")
    assert card["network"] == {"input_shape": [1, 8, 8], "num_classes": 4, "temporal": False}
    run("fisher", trained, *NET, *DATA, "--num-examples", 9, "--out", "out", "--no-figure")
    for name in ("mynet:build", "mydata:load"):
        own.allow(name)
    model = build_model(load(trained))
    for name, tensor in load(trained).state_dict.items():
        assert torch.equal(model.state_dict()[name], tensor)
    expected = fisher_trace(model, batches(load_split(CONFIG, "train", num_examples=9), 64))
    pd.testing.assert_frame_equal(results.load(tmp_path / "out" / "fisher_last.json").table, expected.table)


def test_no_file_has_code_run(forgotten, place):
    """Reading, showing, probing and resuming import nothing until the user says the names."""
    load(forgotten)
    run("show", forgotten)
    run("show", "run")
    assert failed("fisher", forgotten) == refusal("mydata:load", "--data")
    assert failed("fisher", forgotten, *DATA) == refusal("mynet:build", "--model")
    assert failed("train", "--resume", "--out", "run") == refusal("mydata:load", "--data")
    with pytest.raises(ValueError, match=r"^The configuration names 'mynet:build'"):
        build_model(load(forgotten))
    assert not (place / "imported").exists() and "mynet" not in sys.modules
    run("fisher", forgotten, *NET, *DATA, "--no-figure")
    assert (place / "imported").exists()


def test_what_was_allowed_to_a_command_ends_with_it(trained):
    with pytest.raises(ValueError, match=r"^The configuration names 'mynet:build'"):
        own.found("mynet:build", "--model")


def test_one_name_does_not_allow_another(forgotten, place):
    said = failed("fisher", forgotten, "--model", "mynet:nine_classes", *DATA, status=2)
    assert (
        said == "--model is 'mynet:nine_classes', but the checkpoints name 'mynet:build'; give that, or leave it out."
    )
    with own.allowing(["mynet:nine_classes"]), pytest.raises(ValueError, match="names 'mynet:build'"):
        build_model(load(forgotten))
    assert not (place / "imported").exists()


def test_the_same_command_with_resume_goes_on(trained):
    before = trained.read_bytes()
    run("train", *NET, *DATA, *FEW, "--out", "run", "--resume")
    assert trained.read_bytes() == before


def test_the_default_folder_of_a_run_has_no_colon(place):
    run("train", *NET, *DATA, *FEW)
    assert (place / "trained_models" / "mydata.load-mynet.build-sdt-seed0" / "config.json").exists()


@pytest.mark.parametrize("probe", PROBES)
def test_every_probe_takes_a_checkpoint_of_an_own_network(trained, probe, tmp_path):
    few = {"landscape": ("--points", 3), "hessian": ("-k", 1, "--num-probes", 2)}.get(probe, ())
    run(probe, trained, *NET, *DATA, "--num-examples", 8, *few, "--no-figure", "--out", "out")
    found = [results.load(path) for path in sorted((tmp_path / "out").glob("*.json"))]
    assert found and all(len(one.table) and one.source["config"]["model"] == "mynet:build" for one in found)


# --- probing without a checkpoint ---


def test_a_network_without_a_checkpoint(place, weights):
    torch.save(weights, "w.pt")
    run("fisher", *NET, "--weights", "w.pt", *DATA, "--num-steps", 3, "--num-examples", 9, "--out", "out")
    found = results.load(place / "out" / "fisher_w.json")
    sys.path.insert(0, str(place))
    import mydata
    import mynet

    model = mynet.build(3, 4, (1, 8, 8))
    model.load_state_dict(weights)
    inputs, labels = mydata.load()["train"]
    chosen = load_split_order(labels)
    expected = fisher_trace(model.eval(), [(inputs[chosen][:9], labels[chosen][:9])])
    pd.testing.assert_frame_equal(found.table, expected.table)
    assert found.source["config"] == {"dataset": "mydata:load", "model": "mynet:build", "num_steps": 3}
    assert found.source["run"] == "w" and found.source["file"] == "w.pt" and "epoch" not in found.source
    row = results.combine([found]).iloc[0]
    assert (row["model"], row["num_steps"]) == ("mynet:build", 3)
    assert row[["method", "seed", "epoch"]].isna().all()
    assert (place / "out" / "fisher_trace.pdf").exists()


def load_split_order(labels):
    from snn_probe.data.ordering import cut

    return cut(labels.numpy())["train"]


@pytest.mark.parametrize("probe", PROBES)
def test_every_probe_takes_a_network_without_a_checkpoint(place, weights, probe):
    torch.save(weights, "w.pt")
    few = {"landscape": ("--points", 3), "hessian": ("-k", 1, "--num-probes", 2)}.get(probe, ())
    loss = ("--objective", "tet") if probe in ("hessian", "gradients") else ()
    run(probe, *NET, "--weights", "w.pt", *DATA, "--num-steps", 2, "--num-examples", 8, *few, *loss)
    assert list((place / "reports" / "w").glob("*.png"))


def test_a_network_of_this_program_with_foreign_weights_and_one_as_it_is_made(place):
    run("train", "--epochs", 1, "--train-examples", 20, "--num-steps", 2, "--out", "run")
    state = {f"module.{name}": t for name, t in load("run/checkpoints/last.pt").state_dict.items()}
    torch.save({"model": state}, "tiny.pth")
    common = ("--num-examples", 6, "--no-figure")
    run("fisher", "run/checkpoints/last.pt", *common, "--out", "a")
    run("fisher", "--model", "tiny", "--weights", "tiny.pth", "--num-steps", 2, *common, "--out", "b")
    run("fisher", "--model", "tiny", "--num-steps", 2, *common, "--out", "c")
    tables = [
        results.load(place / f"{name}.json").table for name in ("a/fisher_last", "b/fisher_tiny", "c/fisher_tiny")
    ]
    pd.testing.assert_frame_equal(tables[0], tables[1])
    assert not tables[0]["trace"].equals(tables[2]["trace"])


def test_several_files_of_weights_share_a_figure_and_a_line_joins_two(place, weights):
    torch.save(weights, "a.pt")
    torch.save({name: 2 * t for name, t in weights.items()}, "b.pt")
    common = (*DATA, "--num-steps", 2, "--num-examples", 8)
    run("fisher", *NET, "--weights", "a.pt", "--weights", "b.pt", *common)
    table = pd.read_csv(place / "reports" / "a+1" / "fisher.csv")
    assert list(dict.fromkeys(table["run"])) == ["a", "b"]
    run("landscape", *NET, "--weights", "a.pt", "--to", "b.pt", "--points", 3, *common, "--out", "line")
    run("timesteps", *NET, "--weights", "b.pt", *common, "--out", "end")
    line = results.load(place / "line" / "landscape_a.json").table.query("objective == 'sdt' and alpha == 1")
    end = results.load(place / "end" / "timesteps_b.json").table.iloc[-1]
    assert line["loss"].item() == pytest.approx(end["loss"], rel=1e-6)


def test_a_network_trained_elsewhere_has_no_objective_of_its_own(place, weights):
    torch.save(weights, "w.pt")
    assert failed("hessian", *NET, "--weights", "w.pt", *DATA, "--num-steps", 2) == (
        "It is not known how w.pt was trained; name the loss with --objective sdt, tet, trt or MODULE:NAME."
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Give CKPT, or a network by one --model NAME [--weights FILE] [--data NAME]."),
        (("--weights", "w.pt"), "Give CKPT, or a network by one --model NAME [--weights FILE] [--data NAME]."),
        (("--model", "tiny", "--model", "cnn5"), "Give CKPT, or a network by one --model NAME"),
        (("--model", "huge"), "model is 'huge'; give one of 'tiny', "),
        (("--model", "tiny", "--data", "mnist"), "dataset is 'mnist'; give one of 'digits', "),
        (("c.pt", "--weights", "w.pt"), "--weights and CKPT exclude each other; a checkpoint has its own weights."),
        (("c.pt", "--num-steps", 2), "--num-steps is for --model without CKPT; a checkpoint knows its timesteps."),
        (("--model", "tiny", "--num-steps", 0), "Invalid value for '--num-steps': 0 is not in the range x>=1."),
    ],
)
def test_what_is_measured_must_be_said_once(place, arguments, said):
    assert failed("fisher", *arguments, status=2).startswith(said)


# --- weights ---

FORMS = {
    "raw.pt": lambda w: w,
    "raw.pth": lambda w: w,
    "state_dict.pth.tar": lambda w: {"state_dict": w, "epoch": 3},
    "model_state_dict.pt": lambda w: {"model_state_dict": w},
    "model.pth": lambda w: {"model": w},
    "net.pt": lambda w: {"net": w, "acc": 0.5},
    "parallel.pt": lambda w: {"net": {f"module.{name}": t for name, t in w.items()}},
    "inner.pt": lambda w: {name.removeprefix("net."): t for name, t in w.items()},
}


@pytest.mark.parametrize("name", [*FORMS, "tensors.safetensors"])
def test_every_form_of_weights_from_the_command_line(place, weights, name):
    if name.endswith(".safetensors"):
        pytest.importorskip("safetensors.torch").save_file(weights, name)
    else:
        torch.save(FORMS[name](weights), name)
    still = ("--learning-rate", 1e-30)  # Adam's step is about the learning rate: below any float32 of these
    run("train", *NET, *DATA, *FEW, *still, "--weights", name, "--out", "run")
    checkpoint = load("run/checkpoints/last.pt")
    for key, tensor in weights.items():
        assert torch.equal(checkpoint.state_dict[key], tensor)
    assert len(checkpoint.config.weights) == 64
    run("timesteps", *NET, *DATA, "--weights", name, "--num-steps", 2, "--split", "test", "--no-figure", "--out", "out")
    (found,) = (place / "out").glob("*.json")
    last = results.load(found).table.iloc[-1]
    assert last["loss"] == pytest.approx(checkpoint.card["metrics"]["test_loss"], rel=1e-6)


def _runs(*arguments):
    return ("train", *NET, *DATA, *FEW, *arguments, "--out", "run"), (
        "fisher",
        *NET,
        *DATA,
        "--num-steps",
        2,
        *arguments,
    )


@pytest.mark.parametrize("which", [0, 1])
def test_weights_that_do_not_fit_are_listed_and_refused(place, weights, which):
    other = {"net.9.weight": torch.zeros(2), **{k: v for k, v in weights.items() if k != "net.1.bias"}}
    torch.save({**other, "net.3.bias": torch.zeros(7)}, "w.pt")
    assert failed(*_runs("--weights", "w.pt")[which]) == (
        "The weights do not fit the network (missing: net.1.bias; unexpected: net.9.weight; unlike: net.3.bias "
        "float32(7,) in place of float32(4,)); build the network that they were saved from, or rename and remove "
        "entries of the dict before loading it."
    )
    assert not (place / "run").exists()


class Harmful:
    def __reduce__(self):
        return (open, ("harmed", "w"))


@pytest.mark.parametrize("which", [0, 1])
def test_weights_with_code_are_refused_and_not_run(place, weights, which):
    torch.save({"state_dict": weights, "args": Harmful()}, "w.pt")
    said = failed(*_runs("--weights", "w.pt")[which])
    assert said.startswith("w.pt holds more than tensors (") and "save torch.save(model.state_dict()" in said
    assert not (place / "harmed").exists()
    assert failed(*_runs("--weights", "none.pt")[which]).startswith("none.pt does not exist; give a file of weights")


def test_a_run_from_weights_knows_them_when_it_is_resumed(place, weights):
    torch.save(weights, "w.pt")
    torch.save({name: 2 * t for name, t in weights.items()}, "other.pt")
    common = (*NET, *DATA, *FEW, "--out", "run")
    run("train", *common, "--weights", "w.pt")
    digest = json.loads((place / "run" / "config.json").read_text())["weights"]
    run("train", *common, "--resume")
    run("train", *common, "--resume", "--weights", "w.pt")
    said = failed("train", *common, "--resume", "--weights", "other.pt")
    assert said.startswith(f"The run in run has another configuration (weights '{digest}' -> '")
    for state in (place / "run").glob("resume*.pt"):
        state.unlink()
    assert failed("train", *common, "--resume") == (
        f"The run begins from weights with the SHA-256 {digest}; give their file with --weights."
    )


def test_a_configuration_without_weights_is_written_as_before():
    assert "weights" not in RunConfig().to_dict()
    with pytest.raises(ValueError, match=r"^weights is 'w.pt'; give the SHA-256 of weights, 64 hexadecimal digits.$"):
        RunConfig(weights="w.pt")


# --- a network that is wrong ---

WRONG_NETWORKS = {
    "nowhere:build": "nowhere:build: there is no module 'nowhere' in the current folder or installed; go to its folder, "
                     "or name it in PYTHONPATH.",
    "mynet.deep:build": "mynet.deep:build: there is no module 'mynet.deep' in the current folder or installed; ",
    "lacking:build": "lacking:build: importing lacking failed with ModuleNotFoundError (No module named 'nowhere'); "
                     "correct it.",
    "broken:build": "broken:build: importing broken failed with SyntaxError (",
    "leaving:build": "leaving:build: importing leaving failed with SystemExit (3); correct it.",
    "mynet:bild": "mynet:bild: mynet has no 'bild'; it has build, network, number, raises, needs, ",
    "mynet:raises": "mynet:raises raised KeyError ('hidden'); correct it.",
    "mynet:needs": "mynet:needs needs the argument 'hidden', which it is not called with; take any of input_shape, "
                   "num_classes, num_steps, width, neuron by name, and give every other argument a default.",
    "mynet:no_module": "mynet:no_module returned int, not a torch.nn.Module; return a model whose model(inputs) gives "
                       "logits (T, N, C).",
    "mynet:network": "mynet:network is a network, not a function that makes one; name a function that returns it.",
    "mynet:number": "mynet:number is int, not a function; name a function that makes it.",
    "mynet:without_time": "mynet:without_time: The model returned shape (3, 4); a temporal model returns logits (T, N, C)",
    "mynet:another_size": "mynet:another_size: The network does not take inputs of shape (3, 1, 8, 8)",
    "mynet:Linear": "mynet:Linear: the model raised RuntimeError (mat1 and mat2 shapes cannot be multiplied (24x8 and 3x4)) "
                    "on inputs of shape (3, 1, 8, 8); make it take these.",
    "mynet:nine_classes": "mynet:nine_classes: The model returned 9 logits per example where 4 classes are expected; ",
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_NETWORKS)
def test_a_wrong_network_is_one_sentence_in_training_and_probing(place, name):
    (place / "broken.py").write_text("def build(:\n")
    (place / "leaving.py").write_text("raise SystemExit(3)\n")
    (place / "lacking.py").write_text("import nowhere\n")
    model = ("--model", name, *DATA, "--num-steps", 2)
    assert failed("train", *model, "--epochs", 1, "--out", "run").startswith(WRONG_NETWORKS[name])
    assert failed("fisher", *model).startswith(WRONG_NETWORKS[name])
    assert not (place / "run").exists()


@pytest.mark.parametrize("name", ["mynet.py:build", "my net:build", ":build", "mynet:", "mynet:build:x", "a/b:c"])
def test_a_name_must_be_written_as_python_does(place, name):
    said = f"{name!r}; write package.module:name, as in mynet:build for build in mynet.py."
    assert failed("train", "--model", name, *DATA).endswith(said)
    for field in ("model", "dataset", "method"):
        with pytest.raises(ValueError) as refused:
            RunConfig(**{field: name})
        assert str(refused.value) == f"{field} is {said}"


def test_an_option_that_the_factory_does_not_take_is_refused(place):
    said = failed("train", *NET, *DATA, *FEW, "--width", 0.5, "--out", "run")
    assert said == "width is given, but mynet:build takes no width; leave it out."
    said = failed("train", *NET, *DATA, *FEW, "--augment", "--out", "run")
    assert said == "augment is true, but mydata:load has no augmentation here; augment in it, or leave it out."


def test_a_network_is_drawn_from_the_seed_and_leaves_the_random_state(place):
    own.allow("mynet:build")
    known = {"input_shape": [1, 8, 8], "num_classes": 4, "temporal": False}
    torch.manual_seed(5)
    before = torch.get_rng_state()
    nets = [build_network(RunConfig(model="mynet:build", seed=seed), known).state_dict() for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(nets[0]["net.1.weight"], nets[1]["net.1.weight"])
    assert not torch.equal(nets[0]["net.1.weight"], nets[2]["net.1.weight"])


# --- data ---

WRONG_DATA = {
    "nowhere:load": "nowhere:load: there is no module 'nowhere' ",
    "mydata:raises": "mydata:raises raised OSError (no such disk); correct it.",
    "mydata:pair": "mydata:pair returned tuple; return a mapping with train, test and, if you like, validation, each a "
                   "pair (inputs, labels) or a Dataset; classes and temporal may stand beside them.",
    "mydata:unknown_key": "mydata:unknown_key returned a mapping of train, test, classes, valid; return a mapping with ",
    "mydata:out_of_range": "mydata:out_of_range has labels from 0 to 4, but 4 classes; number them from 0 to 3.",
    "mydata:negative": "mydata:negative has labels from -1 to 3, but 4 classes; number them from 0 to 3.",
    "mydata:float_labels": "mydata:float_labels, train: labels are (4,) float32; give whole class numbers, one per "
                           "example: (N,), from 0.",
    "mydata:one_hot": "mydata:one_hot, train: labels are (4, 4) int64; give whole class numbers, ",
    "mydata:lengths": "mydata:lengths, train: inputs have shape (4, 1, 8, 8) and labels (3,); give real inputs (N, ...) "
                      "and labels (N,) of the same N, at least 1.",
    "mydata:nan": "mydata:nan, train: inputs hold NaN or infinity; remove those examples, or replace the values.",
    "mydata:other_shapes": "The splits of mydata:other_shapes have inputs of different shapes, [(1, 4, 4), (1, 8, 8)]; "
                           "make them alike.",
    "mydata:one_class": "mydata:one_class has one class; give labels of at least two classes, and classes as a list of "
                        "names.",
    "mydata:words": "mydata:words has classes 'abcd'; give labels of at least two classes, ",
    "mydata:temporal_word": "mydata:temporal_word says that temporal is 'yes' of inputs (N, 1, 8, 8); streams are ",
    "mydata:iterator": "mydata:iterator, train is list_iterator; give a pair (inputs, labels) of tensors, or a map-style "
                       "Dataset of (input, label).",
    "mydata:broken_dataset": "mydata:broken_dataset, train: reading its examples raised RuntimeError (stack expects each "
                             "tensor to be equal size",
    "mydata:five_frames": "The streams of mydata:five_frames have 5 timesteps, but num_steps is 2; give --num-steps 5, "
                          "or let the factory take num_steps and cut them so.",
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_DATA)
def test_wrong_data_is_one_sentence_in_training_and_probing(place, name):
    data = (*NET, "--data", name, "--num-steps", 2)
    assert failed("train", *data, "--epochs", 1, "--out", "run").startswith(WRONG_DATA[name])
    assert failed("fisher", *data).startswith(WRONG_DATA[name])
    assert not (place / "run").exists()


def test_a_split_that_is_not_given_is_missed_only_when_it_is_needed(place):
    run("fisher", *NET, "--data", "mydata:train_alone", "--num-steps", 2, "--num-examples", 4, "--no-figure")
    said = "mydata:train_alone gives no test split, only train, validation; return it too."
    assert failed("train", *NET, "--data", "mydata:train_alone", *FEW, "--out", "run") == said
    assert failed("fisher", *NET, "--data", "mydata:train_alone", "--split", "test") == said
    said = "image_size is 8, but the frames or inputs of mydata:load are as they are; leave it out."
    assert failed("train", *NET, *DATA, *FEW, "--image-size", 8, "--out", "run") == said


def test_splits_are_those_given_and_validation_is_cut_from_train(place):
    own.allow("mydata:load")
    info = describe("mydata:load")
    assert (info.input_shape, info.num_classes, info.temporal, info.classes) == ((1, 8, 8), 4, False, tuple("abcd"))
    train_split, validation, test = (load_data("mydata:load", name) for name in ("train", "validation", "test"))
    import mydata

    inputs, labels = mydata.load()["train"]
    assert (len(train_split), len(validation), len(test)) == (36, 4, 12)
    together = torch.cat([train_split.inputs, validation.inputs])
    where = [int((inputs == x).flatten(1).all(1).nonzero()) for x in together]
    assert sorted(where) == list(range(40))
    assert torch.equal(torch.cat([train_split.labels, validation.labels]), labels[where])
    assert train_split.labels[:8].tolist() == [0, 1, 2, 3] * 2
    assert torch.equal(test.inputs, mydata.load()["test"][0])


@pytest.mark.parametrize("name", ["mydata:datasets", "mydata:arrays"])
def test_datasets_and_arrays_are_as_tensors(place, name):
    for one in ("mydata:load", name):
        own.allow(one)
    expected, found = load_data("mydata:load", "train"), load_data(name, "train")
    assert found.stored.dtype == torch.float32 and found.labels.dtype == torch.int64
    torch.testing.assert_close(found.inputs, expected.inputs, rtol=0, atol=0)
    assert torch.equal(found.labels, expected.labels)


def test_streams_are_told_by_their_axes_or_by_what_is_said(place):
    x, y = torch.rand(8, 5, 3), torch.arange(8) % 2
    own.allow("mine:streams", {"train": (x, y)})
    own.allow("mine:signals", {"train": (x, y), "temporal": False})
    own.allow("mine:vectors", {"train": (x[:, 0], y)})
    kinds = {name: describe(f"mine:{name}") for name in ("streams", "signals", "vectors")}
    assert [(k.temporal, k.input_shape) for k in kinds.values()] == [(True, (3,)), (False, (5, 3)), (False, (3,))]
    assert load_data("mine:streams", "train", num_steps=5, num_examples=3).inputs.shape == (3, 5, 3)


def test_streams_cut_by_the_factory_train_and_are_probed(place):
    common = (*NET, "--data", "mydata:streams", "--num-steps", 3)
    run("train", *common, "--epochs", 1, "--out", "run")
    card = load("run/checkpoints/last.pt").card
    assert card["network"] == {"input_shape": [2, 4, 4], "num_classes": 4, "temporal": True}
    run("fisher", "run/checkpoints/last.pt", *NET, "--data", "mydata:streams", "--no-figure", "--out", "out")
    table = results.load(place / "out" / "fisher_last.json").table
    assert table["timestep"].max() == 3


def test_tensors_and_functions_from_python(place):
    """Nothing is imported: the names stand for the objects."""
    x = torch.rand(24, 6, generator=torch.Generator().manual_seed(1))
    y = torch.arange(24) % 3
    own.allow("mine:data", {"train": (x, y), "test": (x[:6], y[:6])})

    def build(num_steps, num_classes):
        from networks import lif
        from spikingjelly.activation_based import layer

        from snn_probe.temporal import from_spikingjelly

        net = torch.nn.Sequential(layer.Linear(6, 5), lif(v_threshold=0.3), layer.Linear(5, num_classes))
        return from_spikingjelly(net, num_steps)

    own.allow("mine:build", build)
    config = RunConfig(model="mine:build", dataset="mine:data", num_steps=2, epochs=2, batch_size=8)
    *_, last = train(config, folder=place / "run")
    assert last.card["network"] == {"input_shape": [6], "num_classes": 3, "temporal": False}
    again = load(place / "run" / "checkpoints" / "last.pt")
    assert torch.equal(build_model(again)(x), build_model(last)(x))


# --- folders ---


def test_a_folder_of_frames(place):
    generator = np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 3)):
        for name in ("left", "right"):
            folder = place / "frames" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                frames = generator.poisson(0.3 + (name == "left"), (3, 2, 4, 4))
                if number % 2:
                    np.savez(folder / f"{number:02}.npz", frames=frames, other=frames[:1])
                else:
                    np.save(folder / f"{number:02}.npy", frames.astype(np.float32))
    run("train", *NET, "--data", "frames", "--num-steps", 3, "--epochs", 1, "--out", "run")
    checkpoint = load("run/checkpoints/last.pt")
    assert checkpoint.config.dataset == "frame-folder" and checkpoint.config.classes == ("left", "right")
    assert checkpoint.card["network"] == {"input_shape": [2, 4, 4], "num_classes": 2, "temporal": True}
    split = load_split(checkpoint.config, "test", data_root=place / "frames")
    assert split.labels.tolist() == [0, 1] * 3
    expected = [np.load(place / "frames" / "test" / name / "00.npy") for name in ("left", "right")]
    np.testing.assert_array_equal(split.inputs[:2], np.stack(expected))
    few = ("--num-examples", 4, "--no-figure", "--out", "out")
    run("fisher", "run/checkpoints/last.pt", *NET, "--data", "frames", *few)
    assert results.load(place / "out" / "fisher_last.json").settings["num_examples"] == 4

    wrong = place / "frames" / "train" / "left" / "00.npy"
    common = (*NET, "--data", "frames", "--num-steps", 3)
    assert failed("fisher", *NET, "--data", "frames", "--num-steps", 2).endswith(
        "has frames (3, 2, 4, 4), but num_steps is 2 and frames are (2, 4, 4); give --num-steps 3, or make all files alike."
    )
    np.save(wrong, np.zeros((4, 4)))
    assert failed("fisher", *common).endswith("00.npy holds float64(4, 4); frames are numbers (T, C, H, W).")
    np.save(wrong, np.full((3, 2, 4, 4), np.nan))
    assert failed("fisher", *common).endswith("00.npy holds NaN or infinity; write it again, or delete it.")
    wrong.write_bytes(b"nonsense")
    assert "00.npy cannot be read as frames (" in failed("fisher", *common)
    np.save(wrong, np.array([Harmful()], dtype=object), allow_pickle=True)
    assert "00.npy cannot be read as frames (it holds Python objects" in failed("fisher", *common)
    assert not (place / "harmed").exists()


def test_a_folder_of_images_is_the_data_set_image_folder(place):
    from PIL import Image

    generator = np.random.default_rng(0)
    for split, count in (("train", 10), ("test", 3)):
        for name in ("ant", "bee"):
            folder = place / "images" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(generator.integers(0, 255, (8, 8, 3), np.uint8)).save(folder / f"{number}.png")
    common = ("--num-examples", 4, "--no-figure", "--num-steps", 2)
    run("fisher", *NET, "--data", "images", *common, "--out", "a")
    run("fisher", *NET, "--data", "image-folder", "--data-root", "images", *common, "--out", "b")
    a, b = (results.load(place / name / "fisher_build.json") for name in "ab")
    pd.testing.assert_frame_equal(a.table, b.table)
    assert a.source["config"]["dataset"] == "image-folder" and a.source["config"]["classes"] == ["ant", "bee"]
    (place / "empty").mkdir()
    assert "empty" in failed("fisher", *NET, "--data", "empty")


# --- networks of other kinds, and without known spiking layers ---

OTHER_KINDS = """
import snntorch
import torch
from torch import nn
from snn_probe.temporal import from_snntorch


class Loop(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.first, self.last = nn.Linear(64, 12), nn.Linear(12, classes)
        self.lif = snntorch.Leaky(beta=0.9, learn_beta=True)

    def forward(self, images):
        membrane, logits = self.lif.init_leaky(), []
        for _ in range(2):
            spikes, membrane = self.lif(self.first(images.flatten(1)), membrane)
            logits.append(self.last(spikes))
        return torch.stack(logits)


def loop(num_steps, num_classes):
    return from_snntorch(Loop(num_classes), num_steps=num_steps, takes="image")


class Recurrent(nn.Module):
    def __init__(self, num_steps, classes):
        super().__init__()
        self.num_steps, self.first, self.last = num_steps, nn.Linear(64, 12), nn.Linear(12, classes)

    def forward(self, x):
        current, logits = self.first(x.flatten(1)), []
        v = torch.zeros_like(current)
        for _ in range(self.num_steps):
            v = 0.5 * v + current
            s = (v > 0.5).to(v) + torch.sigmoid(v) - torch.sigmoid(v).detach()
            logits.append(self.last(s))
        return torch.stack(logits)


def plain(num_steps, num_classes):
    return Recurrent(num_steps, num_classes)
"""


@pytest.fixture
def others(place):
    (place / "mynet.py").write_text(OTHER_KINDS)
    return place


def test_a_network_of_snntorch_that_returns_its_membrane_trains(others):
    """Its firing rate is that of its spikes, counted by a plain loop."""
    pytest.importorskip("snntorch")
    run("train", "--model", "mynet:loop", *DATA, *FEW, "--out", "run")
    row = pd.read_csv(others / "run" / "metrics.csv").iloc[-1]
    own.allow("mynet:loop")
    own.allow("mydata:load")
    checkpoint = load("run/checkpoints/last.pt")
    net, config = build_model(checkpoint).net, checkpoint.config
    spikes = []
    net.lif.register_forward_hook(lambda layer, args, result: spikes.append(result[0].detach()))
    ((inputs, _),) = batches(load_split(config, "validation"), 64)
    net(inputs)
    assert row["firing_rate"] == pytest.approx(torch.stack(spikes).mean().item(), rel=1e-6)
    assert 0 < row["firing_rate"] < 1


def test_a_network_without_known_spiking_layers_has_no_firing_rate(others):
    """It trains, is resumed, shown, drawn and followed: null in the card, empty in the table."""
    common = ("--model", "mynet:plain", *DATA, "--num-steps", 2, "--batch-size", 16, "--out", "run")
    run("train", *common, "--epochs", 1)
    pytest.importorskip("tensorboard")
    run("train", *common, "--epochs", 2, "--resume", "--override", "--tensorboard")
    card = load("run/checkpoints/last.pt").card
    assert card["metrics"]["firing_rate"] is None and card["epoch"] == 2
    table = pd.read_csv(others / "run" / "metrics.csv")
    assert (
        table["firing_rate"].isna().tolist() == [True, True]
        and not table.drop(columns="firing_rate").isna().any().any()
    )
    assert "metrics.firing_rate" in run("show", "run/checkpoints/last.pt").stdout
    assert json.loads(run("show", "run/checkpoints/last.pt", "--json").stdout)["card"]["metrics"]["firing_rate"] is None
    run("figure", "run", "-o", "curves.png")
