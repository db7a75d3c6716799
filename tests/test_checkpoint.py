"""A checkpoint rebuilds its network exactly; any other file is refused in one sentence, and nothing in it is run."""

import io
import json
import os
import pickle
import re
import shutil
import warnings
import zipfile

import pytest
import torch

from snn_probe import checkpoint as checkpoints
from snn_probe.checkpoint import (
    FORMAT,
    Checkpoint,
    build_model,
    load,
    make_checkpoint,
    save,
    weights_digest,
)
from snn_probe.config import RunConfig
from snn_probe.data import DATASETS
from snn_probe.data import load as load_data
from snn_probe.system import build_network, network_of

CONFIGS = {
    "digits": RunConfig(method="trt", num_steps=3, seed=5, hyperparameters={"decay": 0.5}),
    "event-digits": RunConfig(method="tet", dataset="event-digits", num_steps=3, seed=5),
}
DESCRIBED = {
    "run": "digits-tiny-trt-seed5",
    "kind": "last",
    "epoch": 3,
    "metrics": {"train_loss": 1.5, "test_accuracy": 1 / 3},
    "environment": {"python": "3.11", "git_commit": None},
}
ADVICE = "give a file that `snnprobe train` wrote, or a network with these weights, --model MODULE:FACTORY --weights .*some.pt.$"


def sentence(text):
    return "^" + re.escape(text) + "$"


def model_of(config):
    """A network whose weights and running statistics are those of no fresh network."""
    model = build_network(config, network_of(config))
    model.train()
    with torch.no_grad():
        model(load_data(config.dataset, "train", num_steps=config.num_steps, num_examples=20).inputs)
        for parameter in model.parameters():
            parameter.mul_(1.25)
    return model.eval()


def checkpoint_of(config):
    return make_checkpoint(model_of(config), config, **DESCRIBED)


@pytest.fixture(scope="module")
def good():
    return checkpoint_of(CONFIGS["digits"])


@pytest.fixture(scope="module")
def good_bytes(good, tmp_path_factory):
    return save(good, tmp_path_factory.mktemp("good") / "good.pt").read_bytes()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "some.pt"


def write(path, good, **changed):
    """A file like a checkpoint's with some of its three parts changed."""
    content = {"format": FORMAT, "card": json.dumps(dict(good.card)), "state_dict": dict(good.state_dict)}
    torch.save(content | changed, path)


# --- what a checkpoint holds ---


@pytest.mark.parametrize("name", CONFIGS)
def test_round_trip_is_exact(path, name):
    before = checkpoint_of(CONFIGS[name])
    assert save(before, str(path)) == path
    after = load(str(path))
    assert after.card == before.card
    assert list(after.state_dict) == list(before.state_dict)
    for key, tensor in before.state_dict.items():
        assert after.state_dict[key].dtype == tensor.dtype
        assert torch.equal(after.state_dict[key], tensor)
    assert after.config == CONFIGS[name] and after.epoch == 3


def test_card_says_what_was_trained_and_how_it_went(good):
    card = dict(good.card)
    assert {key: card.pop(key) for key in DESCRIBED} == DESCRIBED
    assert card.pop("config") == CONFIGS["digits"].to_dict()
    assert card.pop("network") == {"input_shape": [1, 8, 8], "num_classes": 10, "temporal": False}
    assert card.pop("sha256") == weights_digest(good.state_dict)
    assert card == {}


def test_file_holds_exactly_three_keys_of_text_and_tensors(path, good):
    save(good, path)
    content = torch.load(path, weights_only=True)
    assert set(content) == {"format", "card", "state_dict"}
    assert content["format"] == "snn_probe.checkpoint/1"
    assert json.loads(content["card"]) == good.card
    for tensor in content["state_dict"].values():
        assert tensor.device.type == "cpu" and not tensor.requires_grad


def test_later_training_does_not_reach_a_checkpoint_made_before():
    model = model_of(CONFIGS["digits"])
    made = make_checkpoint(model, CONFIGS["digits"], **DESCRIBED)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.add_(1)
    assert weights_digest(made.state_dict) == made.card["sha256"]


def test_of_kind_changes_the_label_alone(good):
    best = good.of_kind("best")
    assert best.card == {**good.card, "kind": "best"} and good.card["kind"] == "last"
    assert best.state_dict is good.state_dict


def test_numbers_that_json_has_not_are_refused_before_anything_is_written(path, good):
    odd = Checkpoint(card={**good.card, "metrics": {"train_loss": float("nan")}}, state_dict=good.state_dict)
    with pytest.raises(ValueError, match=r"^Out of range float values are not JSON compliant"):
        save(odd, path)
    assert not path.exists()


def test_saving_where_a_file_is_in_the_way_is_one_sentence(tmp_path, good):
    (tmp_path / "way").write_text("old")
    with pytest.raises(OSError, match=r"^cannot write .*way/last\.pt: a file stands where the folder .* remove it or"):
        save(good, tmp_path / "way" / "last.pt")


# --- the network it rebuilds ---


@pytest.mark.parametrize("name", CONFIGS)
def test_rebuilt_network_gives_the_same_logits(path, name):
    model = model_of(CONFIGS[name])
    save(make_checkpoint(model, CONFIGS[name], **DESCRIBED), path)
    rebuilt = build_model(load(path))
    assert not any(module.training for module in rebuilt.modules())
    assert all(parameter.requires_grad for parameter in rebuilt.parameters())
    inputs = load_data(name, "test", num_steps=3, num_examples=20).inputs
    with torch.no_grad():
        logits = rebuilt(inputs)
        fresh = build_network(CONFIGS[name], network_of(CONFIGS[name])).eval()
        assert logits.shape == (3, 20, 10)
        assert torch.equal(logits, model(inputs))
        assert not torch.equal(logits, fresh(inputs))


def test_training_a_rebuilt_network_does_not_change_the_checkpoint(good):
    before = weights_digest(good.state_dict)
    rebuilt = build_model(good)
    with torch.no_grad():
        for tensor in rebuilt.state_dict().values():
            tensor.add_(1)
    assert weights_digest(good.state_dict) == before


def test_building_leaves_the_global_random_state_alone(good):
    before = torch.get_rng_state()
    build_model(good)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("change", ["shape", "missing", "unexpected", "whole numbers"])
def test_weights_that_do_not_fit_the_network_are_refused(path, good, change):
    state = dict(good.state_dict)
    name, said = "net.classifier.weight", "size mismatch for net.classifier.weight"
    if change == "shape":
        state[name] = state[name][:, :7].clone()
    elif change == "missing":
        said = f'Missing key.* in state_dict: "{name}"'
        del state[name]
    elif change == "unexpected":
        said = 'Unexpected key.* in state_dict: "net.extra"'
        state["net.extra"] = torch.ones(1)
    else:
        said = "Only Tensors of floating point"
        state[name] = state[name].long()
    write(path, good, state_dict=state, card=json.dumps({**good.card, "sha256": weights_digest(state)}))
    with pytest.raises(
        ValueError, match=f"^The checkpoint's weights do not fit the network 'tiny' of its card: .*{said}"
    ):
        build_model(load(path))


@pytest.mark.parametrize(
    "absurd",
    [{"input_shape": [1, 10**6, 10**6]}, {"num_classes": 10**10}, {"num_classes": 10**17}, {"num_classes": 10**30}],
    ids=str,
)
def test_absurd_sizes_in_a_card_are_refused_without_filling_the_memory(path, good, absurd):
    write(path, good, card=json.dumps({**good.card, "network": {**good.card["network"], **absurd}}))
    with pytest.raises(
        ValueError, match=r"^The checkpoint's weights do not fit the network 'tiny' of its card: "
    ) as caught:
        build_model(load(path))
    assert "\n" not in str(caught.value)


def test_sizes_that_do_not_fit_are_noticed_before_memory_is_taken(path, good, monkeypatch):
    devices = []

    def watched(*arguments):
        model = build_network(*arguments)
        devices.extend({parameter.device.type for parameter in model.parameters()})
        return model

    monkeypatch.setattr(checkpoints, "build_network", watched)
    build_model(good)
    assert devices == ["meta", "cpu"]
    devices.clear()
    write(path, good, card=json.dumps({**good.card, "network": {**good.card["network"], "num_classes": 11}}))
    with pytest.raises(ValueError, match=r"^The checkpoint's weights do not fit .* size mismatch for net\.classifier"):
        build_model(load(path))
    assert devices == ["meta"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model": "resnet1000"}, "model is 'resnet1000'; give one of 'tiny'"),
        ({"dataset": "mnist"}, "dataset is 'mnist'; give one of 'digits', 'event-digits', "),
    ],
)
def test_unknown_network_or_data_set_is_refused(changed, said):
    with pytest.raises(ValueError, match="^" + re.escape(said)):
        network_of(RunConfig(**changed))


def test_unknown_network_in_a_card_is_refused(path, good):
    config = {**good.card["config"], "model": "resnet1000"}
    write(path, good, card=json.dumps({**good.card, "config": config}))
    with pytest.raises(ValueError, match=r"^model is 'resnet1000'; give one of 'tiny'"):
        build_model(load(path))


@pytest.mark.parametrize("name", sorted(set(DATASETS) - {"imagenet", "image-folder"}))
def test_network_is_told_the_shape_of_its_data(name):
    info = DATASETS[name]
    assert network_of(RunConfig(dataset=name)) == {
        "input_shape": list(info.input_shape),
        "num_classes": info.num_classes,
        "temporal": info.temporal,
    }


# --- the digest ---


def test_digest_changes_with_any_single_value(good):
    digest = weights_digest(good.state_dict)
    for name, tensor in good.state_dict.items():
        state = {key: value.clone() for key, value in good.state_dict.items()}
        flat = state[name].view(-1)
        flat[-1] = torch.nextafter(flat[-1], flat[-1] + 1) if tensor.is_floating_point() else flat[-1] + 1
        assert weights_digest(state) != digest, name


def test_digest_covers_names_types_shapes_and_signs_of_zero():
    def digest(name="a", tensor=None):
        return weights_digest({name: torch.zeros(4) if tensor is None else tensor})

    others = [
        torch.zeros(2, 2),
        torch.zeros(2, dtype=torch.float64),
        torch.zeros(4, dtype=torch.int32),
        -torch.zeros(4),
    ]
    found = {digest(), digest("b"), *(digest(tensor=tensor) for tensor in others)}
    assert len(found) == 6
    assert weights_digest({}) not in found


def test_digest_does_not_depend_on_order_or_memory_layout(good):
    backwards = dict(reversed(good.state_dict.items()))
    conv = backwards["net.conv2.weight"]
    backwards["net.conv2.weight"] = conv.contiguous(memory_format=torch.channels_last)
    assert not backwards["net.conv2.weight"].is_contiguous()
    assert weights_digest(backwards) == good.card["sha256"]


def test_digest_is_that_of_its_definition():
    import hashlib

    definition = hashlib.sha256(b"a torch.float32 (2,)\n" + b"\x00\x00\x80\x3f\x00\x00\x00\x40")
    definition.update(b"b torch.int64 ()\n" + (7).to_bytes(8, "little"))
    assert weights_digest({"b": torch.tensor(7), "a": torch.tensor([1.0, 2.0])}) == definition.hexdigest()


# --- files that are no checkpoint ---


def test_missing_file(path):
    said = f"{path} does not exist; give a checkpoint file such as <run>/checkpoints/last.pt."
    with pytest.raises(ValueError, match=sentence(said)):
        load(path)


def test_folder(tmp_path):
    said = f"{tmp_path} is a folder; give a checkpoint file such as <run>/checkpoints/last.pt."
    with pytest.raises(ValueError, match=sentence(said)):
        load(tmp_path)


def test_unreadable_file(path, monkeypatch):
    path.write_bytes(b"x")

    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(checkpoints.Path, "read_bytes", refuse)
    said = f"{path} cannot be read (Permission denied); check the file and its permissions."
    with pytest.raises(ValueError, match=sentence(said)):
        load(path)


def test_empty_file(path):
    path.touch()
    with pytest.raises(ValueError, match=r"some\.pt is truncated or not a checkpoint; use another copy, for example"):
        load(path)


def test_file_truncated_at_any_length(path, good_bytes):
    lengths = {*range(1, 9), *range(9, len(good_bytes), 1499), *range(len(good_bytes) - 70, len(good_bytes))}
    assert len(lengths) > 100
    for length in lengths:
        path.write_bytes(good_bytes[:length])
        said = "is truncated or not a checkpoint" if length >= 4 else "is no checkpoint"
        with pytest.raises(ValueError, match=rf"^\S*some\.pt {said}") as caught:
            load(path)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_any_flipped_bit_is_noticed_or_changes_nothing(path, good, good_bytes):
    refused = 0
    for place in [
        *range(0, 600, 29),
        *range(600, len(good_bytes), 1013),
        *range(len(good_bytes) - 600, len(good_bytes), 29),
    ]:
        flipped = bytearray(good_bytes)
        flipped[place] ^= 1 << (place % 8)
        path.write_bytes(flipped)
        try:
            found = load(path)
        except ValueError as error:
            assert str(error).startswith(f"{path} "), place
            refused += 1
        else:  # an unused byte of the container, such as padding or a date
            assert found.card == good.card and weights_digest(found.state_dict) == good.card["sha256"], place
    assert refused > 80


@pytest.mark.parametrize("name", ["net.conv1.weight", "net.bn1.running_mean", "net.bn1.num_batches_tracked"])
def test_altered_weight_is_refused(path, good, name):
    state = {key: tensor.clone() for key, tensor in good.state_dict.items()}
    state[name].view(-1)[0] += 1
    write(path, good, state_dict=state)
    said = f"{path} is damaged: its weights do not match the SHA-256 in its card; use another copy."
    with pytest.raises(ValueError, match=sentence(said)):
        load(path)


def test_altered_bytes_of_a_weight_are_refused_even_where_the_container_agrees(path, good, good_bytes):
    """The container written anew with one storage changed, so that its own checksums are right."""
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(good_bytes)) as old, zipfile.ZipFile(changed, "w") as new:
        for item in old.infolist():
            content = bytearray(old.read(item))
            if item.filename.endswith("/data/0"):
                content[0] ^= 1
            new.writestr(item.filename, bytes(content))
    path.write_bytes(changed.getvalue())
    with pytest.raises(ValueError, match="is damaged: its weights do not match the SHA-256 in its card; use another"):
        load(path)


@pytest.mark.parametrize(
    "odd",
    [
        {"a": 3},
        {1: torch.ones(3)},
        [torch.ones(3)],
        torch.ones(3),
        {"a": torch.ones(3, device="meta")},
        {"a": torch.ones(1).expand(10**12)},
        {"a": torch.ones(3).to_sparse()},
    ],
    ids=["number", "name", "list", "tensor", "meta", "expanded", "sparse"],
)
def test_what_is_no_dict_of_plain_tensors_is_refused(path, good, odd):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch on sparse tensors
        write(path, good, state_dict=odd)
        with pytest.raises(ValueError, match=r"some\.pt is damaged: its weights do not match the SHA-256 in its card"):
            load(path)


@pytest.mark.parametrize("content", ["state dict", "other keys", "list", "tensor", "format is a number"])
def test_other_pytorch_files_are_refused(path, good, content):
    foreign = {
        "state dict": dict(good.state_dict),
        "other keys": {"epoch": 3, "model": dict(good.state_dict)},
        "list": [torch.ones(3)],
        "tensor": torch.ones(3),
        "format is a number": {"format": 1, "card": "{}", "state_dict": {}},
    }
    torch.save(foreign[content], path)
    with pytest.raises(ValueError, match=rf"some\.pt is a PyTorch file but not a snn_probe checkpoint; {ADVICE}"):
        load(path)


@pytest.mark.parametrize("keys", [("format", "card"), ("format", "card", "state_dict", "optimizer")])
def test_missing_or_further_keys_are_refused(path, keys):
    torch.save(dict.fromkeys(keys, "x") | {"format": FORMAT}, path)
    said = f"{path} has the keys {sorted(keys)}; a checkpoint has format, card, state_dict."
    with pytest.raises(ValueError, match=sentence(said)):
        load(path)


@pytest.mark.parametrize("version", ["2", "10"])
def test_later_format_asks_for_an_upgrade(path, good, version):
    write(path, good, format=f"snn_probe.checkpoint/{version}", something_new=1)
    said = (
        f"{path} has format 'snn_probe.checkpoint/{version}', later than 'snn_probe.checkpoint/1' that this snn_probe "
        "reads; upgrade it."
    )
    with pytest.raises(ValueError, match=sentence(said)):
        load(path)


@pytest.mark.parametrize("stated", ["other.checkpoint/1", "snn_probe.result/1", "snn_probe.checkpoint", ""])
def test_foreign_format_is_refused(path, good, stated):
    write(path, good, format=stated)
    said = f"{path} has format {stated!r}, not 'snn_probe.checkpoint/1'; give a snn_probe checkpoint."
    with pytest.raises(ValueError, match=sentence(said)):
        load(path)


@pytest.mark.parametrize("content", [b"epoch,loss\n1,2\n", b"{}\n", b"\x89PNG\r\n\x1a\n" + bytes(99), bytes(1000)])
def test_other_kinds_of_file_are_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"some\.pt is (no checkpoint|truncated or not a checkpoint).*; (give|use) "):
        load(path)


def test_other_zip_files_are_refused(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/b.txt", "hello")
    with pytest.raises(
        ValueError, match=r"some\.pt is truncated or not a checkpoint .*; use another copy, for example"
    ):
        load(path)


# --- hostile files ---


class Runs:
    """Unpickling this runs a shell command that leaves a file behind."""

    def __init__(self, marker):
        self.command = f"touch '{marker}'"

    def __reduce__(self):
        return os.system, (self.command,)


HOSTILE = {
    "raw pickle": lambda runs: pickle.dumps(runs),
    "raw pickle of protocol 0": lambda runs: pickle.dumps(runs, protocol=0),
    "raw pickle of protocol 2": lambda runs: pickle.dumps({"format": FORMAT, "card": "{}", "state_dict": runs}, 2),
    "instead of everything": lambda runs: saved(runs),
    "instead of the weights": lambda runs: saved({"format": FORMAT, "card": "{}", "state_dict": runs}),
    "instead of a weight": lambda runs: saved({"format": FORMAT, "card": "{}", "state_dict": {"a": runs}}),
    "instead of the card": lambda runs: saved({"format": FORMAT, "card": runs, "state_dict": {}}),
    "of a later format": lambda runs: saved({"format": "snn_probe.checkpoint/2", "card": runs}),
    "in the old container": lambda runs: saved({"format": FORMAT, "card": runs}, zipped=False),
}


def saved(content, *, zipped=True):
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


@pytest.mark.parametrize("where", HOSTILE)
def test_code_in_a_file_is_not_run(path, tmp_path, where):
    marker = tmp_path / "it ran"
    path.write_bytes(HOSTILE[where](Runs(marker)))
    with pytest.raises(
        ValueError,
        match=r"^\S*some\.pt is no checkpoint, or holds more than .* none of its code was run; give a file that `snnprobe train` wrote\.$",
    ) as caught:
        load(path)
    assert not marker.exists()
    for trap in ("\n", "\x1b", "weights_only", "trust"):  # torch's own message explains how to run it
        assert trap not in str(caught.value)
    careless = pickle.load if where.startswith("raw pickle") else lambda file: torch.load(file, weights_only=False)
    with open(path, "rb") as file:
        careless(file)
    assert marker.exists()  # the file was a loaded gun


def test_the_refusal_names_what_the_file_asked_for(path, tmp_path):
    torch.save({"state_dict": Runs(tmp_path / "it ran")}, path)
    with pytest.raises(
        ValueError, match=r"holds more than tensors and text \((posix|nt)\.system\), so it was not loaded"
    ):
        load(path)


def test_a_whole_pickled_network_is_refused(path):
    torch.save(model_of(CONFIGS["digits"]), path)
    with pytest.raises(
        ValueError, match=r"holds more than .*SpikingJellyModel\), so it was not loaded and none of its"
    ):
        load(path)


def without(card, name):
    return {key: value for key, value in card.items() if key != name}


WRONG = {
    ("run", "kind", "sha256"): [-1, {}],
    ("config", "network", "metrics", "environment"): ["1", -1],
    ("epoch",): ["1", {}, -1],
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (name, value)
        for names, values in WRONG.items()
        for name in names
        for value in ["missing", None, True, [1], 1.0, *values]
    ],
    ids=str,
)
def test_card_that_lacks_or_misstates_something_is_refused(path, good, name, value):
    card = without(good.card, name) if value == "missing" else {**good.card, name: value}
    write(path, good, card=json.dumps(card))
    with pytest.raises(
        ValueError, match=sentence(f"{path} has a card that lacks or misstates {name}; use another copy.")
    ):
        load(path)


@pytest.mark.parametrize(
    "changed",
    [
        {"input_shape": [8, 8]},
        {"input_shape": [1, 8, 8, 8]},
        {"input_shape": [1, 8, -8]},
        {"input_shape": [1, 8, 0]},
        {"input_shape": [1, 8, "8"]},
        {"input_shape": [1, 8, 8.0]},
        {"input_shape": [True, 8, 8]},
        {"input_shape": "188"},
        {"input_shape": 8},
        {"input_shape": None},
        {"num_classes": -1},
        {"num_classes": 0},
        {"num_classes": True},
        {"num_classes": "10"},
        {"num_classes": None},
        {"temporal": 0},
        {"temporal": "false"},
        {"temporal": None},
    ],
    ids=str,
)
def test_card_with_an_impossible_network_is_refused(path, good, changed):
    write(path, good, card=json.dumps({**good.card, "network": {**good.card["network"], **changed}}))
    with pytest.raises(
        ValueError, match=sentence(f"{path} has a card that lacks or misstates network; use another copy.")
    ):
        load(path)


@pytest.mark.parametrize("key", ["input_shape", "num_classes", "temporal"])
def test_card_whose_network_lacks_something_is_refused(path, good, key):
    write(path, good, card=json.dumps({**good.card, "network": without(good.card["network"], key)}))
    with pytest.raises(ValueError, match=r"has a card that lacks or misstates network; use another copy.$"):
        load(path)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"method": "sgd"}, "method is 'sgd'; give one of 'sdt', 'tet', 'trt', or package.module:name of your own."),
        ({"num_steps": 0}, "num_steps is 0; give a whole number of at least 1."),
        ({"epochs": float("inf")}, "epochs is inf; give a whole number of at least 1."),
        ({"learning_rate": float("nan")}, "learning_rate is nan; give a finite number above 0."),
        ({"hyperparameters": [1]}, "hyperparameters is [1]; give an object of names and values."),
        (
            {"hyperparameters": {"decay": 10**400}},
            "A hyperparameter of trt is too large; give numbers that a float holds.",
        ),
        ({"seed": "0"}, "seed is '0'; give a whole number of at least 0."),
    ],
)
def test_card_with_an_impossible_configuration_is_refused(path, good, changed, said):
    write(path, good, card=json.dumps({**good.card, "config": {**good.card["config"], **changed}}))
    with pytest.raises(ValueError, match=sentence(f"{path} has a card that cannot be used: {said}")):
        load(path)


@pytest.mark.parametrize(
    "card",
    [
        "",
        "null",
        "5",
        '"text"',
        "[]",
        "{",
        '{"epoch": 1,}',
        "[" * 100_000,
        '{"a":' * 100_000,
        "9" * 10_000,
        5,
        None,
        b"{}",
    ],
    ids=lambda card: repr(card)[:12],
)
def test_card_that_is_no_json_object_is_refused(path, good, card):
    write(path, good, card=card)
    with pytest.raises(ValueError, match=sentence(f"{path} has a card that is not a JSON object; use another copy.")):
        load(path)


def test_card_of_many_megabytes_is_read_or_refused_like_any_other(path, good):
    write(path, good, card=json.dumps({**good.card, "epoch": "1", "more": ["x" * 100] * 50_000}))
    with pytest.raises(ValueError, match=r"has a card that lacks or misstates epoch; use another copy.$"):
        load(path)


def test_a_refused_file_is_left_as_it_was(path, tmp_path, good_bytes):
    path.write_bytes(good_bytes[:-1])
    copy = shutil.copy(path, tmp_path / "copy")
    with pytest.raises(ValueError, match="is truncated or not a checkpoint"):
        load(path)
    assert path.read_bytes() == copy.read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["copy", "some.pt"]
