"""Weights of other programs: what is read, what is refused and in which words, and that nothing is executed."""

import argparse
import json
import random
import struct

import networks
import pytest
import torch
from spikingjelly.activation_based import layer
from torch import nn

from snn_probe.own.weights import KEYS, load_into, read_weights
from snn_probe.temporal import from_spikingjelly

NAMES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
         torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL"}  # fmt: skip


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(3, 2))


STATE = network().state_dict()


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) and a[n].dtype == b[n].dtype for n in a)


def packed(tensors, metadata=None, change=lambda header: header, tail=b""):
    """A .safetensors file, byte by byte."""
    header, data = ({"__metadata__": metadata} if metadata else {}), b""
    for name, tensor in tensors.items():
        raw = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
        place = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": place}
        data += raw
    text = json.dumps(change(header)).encode()
    return struct.pack("<Q", len(text)) + text + data + tail


def written(path, content):
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    return path


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".pth.tar"])
@pytest.mark.parametrize("key", [None, *KEYS])
def test_state_dicts_alone_and_under_the_usual_keys(tmp_path, suffix, key):
    for prefix in ("", "module."):
        state = {prefix + name: tensor for name, tensor in STATE.items()}
        content = state if key is None else {"epoch": 3, key: state, "optimizer": {"lr": 0.1}, "best": torch.ones(1)}
        assert equal(read_weights(written(tmp_path / f"w{suffix}", content)), STATE)


def test_older_files_and_names_that_only_some_share(tmp_path):
    torch.save(STATE, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert equal(read_weights(tmp_path / "old.pth"), STATE)
    mixed = {"module.weight": torch.ones(2), "bias": torch.ones(1)}
    assert equal(read_weights(written(tmp_path / "w.pt", mixed)), mixed)


def test_safetensors_of_every_type(tmp_path):
    tensors = {str(dtype): torch.tensor([[0, 1, 1], [1, 0, 1]]).to(dtype) for dtype in NAMES}
    tensors |= {"scalar": torch.tensor(2.5), "empty": torch.empty(0, 4)}
    path = written(tmp_path / "w.safetensors", packed(tensors, metadata={"format": "pt"}))
    assert equal(read_weights(path), tensors)
    parallel = {f"module.{name}": tensor for name, tensor in STATE.items()}
    assert equal(read_weights(written(path, packed(parallel))), STATE)


def test_safetensors_as_its_own_library_writes_them(tmp_path):
    library = pytest.importorskip("safetensors.torch")
    library.save_file(STATE, tmp_path / "w.safetensors")
    assert equal(read_weights(tmp_path / "w.safetensors"), STATE)
    assert equal(library.load(packed(STATE)), STATE)


ONE = {"a": torch.ones(2), "b": torch.zeros(3)}
CHANGES = {
    "gap": (lambda h: {**h, "b": {**h["b"], "data_offsets": [12, 24]}}, b"1234", "overlap or leave gaps"),
    "overlap": (lambda h: {**h, "b": {**h["b"], "data_offsets": [4, 16]}}, b"", "overlap or leave gaps"),
    "outside": (lambda h: {**h, "b": {**h["b"], "data_offsets": [8, 2**40]}}, b"", "bytes of 'b' do not fit its shape"),
    "beyond": (
        lambda h: {**h, "b": {**h["b"], "shape": [4], "data_offsets": [8, 24]}},
        b"",
        "bytes of 'b' do not fit its shape or the file",
    ),
    "shape": (lambda h: {**h, "b": {**h["b"], "shape": [4]}}, b"", "bytes of 'b' do not fit its shape"),
    "huge": (lambda h: {**h, "b": {**h["b"], "shape": [2**62, 2**62]}}, b"", "bytes of 'b' do not fit its shape"),
    "negative": (lambda h: {**h, "b": {**h["b"], "shape": [-3]}}, b"", "its header misstates 'b'"),
    "offsets": (lambda h: {**h, "b": {**h["b"], "data_offsets": [8]}}, b"", "its header misstates 'b'"),
    "type": (lambda h: {**h, "b": {**h["b"], "dtype": "F4"}}, b"", "'b' is of type 'F4', not one of F64"),
    "no type": (lambda h: {**h, "b": {**h["b"], "dtype": ["F32"]}}, b"", r"'b' is of type \['F32'\], not one of F64"),
    "no entry": (lambda h: {**h, "b": 3}, b"", "its header misstates 'b'"),
    "list": (lambda h: [h], b"", "its header is no JSON object"),
    "tail": (lambda h: h, b"1", "it has bytes that belong to no tensor"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_safetensors_that_are_not_sound(tmp_path, name):
    change, tail, sentence = CHANGES[name]
    path = written(tmp_path / "w.safetensors", packed(ONE, change=change, tail=tail))
    with pytest.raises(ValueError, match=rf"w\.safetensors is no sound \.safetensors file: .*{sentence}.*another copy"):
        read_weights(path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "shorter than its header says"),
        (struct.pack("<Q", 2**63) + b"{}", "shorter than its header says"),
        (struct.pack("<Q", 4) + b"\xff\xfe{}", "its header is no JSON"),
        (struct.pack("<Q", 40000) + b"[" * 40000, "its header is no JSON"),
        (struct.pack("<Q", 15) + b'{"a": 1,"a": 2}', "a name is in its header twice"),
    ],
)
def test_safetensors_with_a_broken_header(tmp_path, content, sentence):
    with pytest.raises(ValueError, match=sentence):
        read_weights(written(tmp_path / "w.safetensors", content))


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_code_in_a_file_is_named_and_not_run(tmp_path):
    sprung = tmp_path / "sprung"
    for content in (Trap(sprung), {"state_dict": STATE, "extra": Trap(sprung)}):
        with pytest.raises(
            ValueError, match=r"holds more than tensors \(.*open\), .*run code .*save\(model\.state_dict\(\)"
        ):
            read_weights(written(tmp_path / "w.pt", content))
    with pytest.raises(ValueError, match=r"more than tensors \(.*Sequential.*Conv2d.*\)"):
        read_weights(written(tmp_path / "w.pt", network()))
    with pytest.raises(ValueError, match=r"more than tensors \(argparse\.Namespace\)"):
        read_weights(written(tmp_path / "w.pt", {"state_dict": STATE, "args": argparse.Namespace(lr=0.1)}))
    torch.save(
        {"state_dict": STATE, "args": argparse.Namespace()}, tmp_path / "o.pt", _use_new_zipfile_serialization=False
    )
    with pytest.raises(ValueError, match=r"more than tensors \(argparse\.Namespace\)"):
        read_weights(tmp_path / "o.pt")
    assert not sprung.exists()


def test_files_that_hold_something_else(tmp_path):
    path = tmp_path / "w.pt"
    cases = [
        (
            {"epoch": 3, "weights": STATE},
            r"holds epoch \(int\), weights \(OrderedDict\), where a state dict is expected",
        ),
        ({}, "holds nothing, where a state dict is expected"),
        ([torch.ones(2)], "holds list, where a state dict is expected, alone or under state_dict, model_state_dict"),
        (torch.ones(2), "holds Tensor, where"),
        ({"a": torch.ones(2), "b": 3.0}, r"holds a \(Tensor\), b \(float\), where"),
        ({"a": torch.eye(2).to_sparse()}, r"holds a \(Tensor\), where"),
        ({"model": STATE, "net": ONE}, "has weights under model and net; save the one that you mean"),
    ]
    for content, sentence in cases:
        with pytest.raises(ValueError, match=sentence):
            read_weights(written(path, content))
    with pytest.raises(ValueError, match=r"is a folder; give a file of weights: \.pt"):
        read_weights(tmp_path)
    with pytest.raises(ValueError, match=r"none\.pt does not exist; give a file of weights"):
        read_weights(tmp_path / "none.pt")
    for content in (b"", b"PK\x03\x04", b"hello", b"\x80\x02."):
        with pytest.raises(ValueError, match=r"w\.pt is damaged or no file of weights; give another copy"):
            read_weights(written(path, content))


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_any_damage_gives_a_sentence_or_tensors(tmp_path, suffix):
    whole = packed(ONE) if suffix == ".safetensors" else written(tmp_path / "whole", ONE).read_bytes()
    generator, path, refused = random.Random(0), tmp_path / f"w{suffix}", 0
    for i in range(200):
        content = bytearray(whole)
        if i % 4 == 0:
            del content[generator.randrange(len(content)) :]
        for _ in range(generator.randrange(1, 4) if content else 0):
            content[generator.randrange(len(content))] = generator.randrange(256)
        try:
            found = read_weights(written(path, bytes(content)))
            assert all(isinstance(tensor, torch.Tensor) for tensor in found.values())
        except ValueError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error)
            refused += 1
    assert refused > 60


def test_weights_are_put_into_the_network():
    model = network(1)
    load_into(model, STATE)
    assert equal(model.state_dict(), STATE)
    load_into(
        model, {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in STATE.items()}
    )
    assert equal(model.state_dict(), STATE)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: {n: t for n, t in s.items() if not n.startswith("2")}, r"\(missing: 2\.weight, 2\.bias\); build"),
        (lambda s: {**s, "3.weight": torch.ones(1)}, r"\(unexpected: 3\.weight\); build the network that they were"),
        (lambda s: {**s, "2.bias": torch.ones(5)}, r"\(unlike: 2\.bias float32\(5,\) in place of float32\(2,\)\)"),
        (lambda s: {**s, "2.bias": torch.ones(2).long()}, r"unlike: 2\.bias int64\(2,\) in place of float32\(2,\)"),
        (lambda s: {"x": torch.ones(1)}, r"\(missing: 0\.weight, .*; unexpected: x\)"),
    ],
)
def test_weights_that_do_not_fit_change_nothing(change, sentence):
    model = network(1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=sentence):
        load_into(model, change(STATE))
    assert equal(model.state_dict(), before)


def test_weights_of_a_network_wrapped_since():
    def net():
        return nn.Sequential(layer.Linear(3, 4), networks.lif(), layer.Linear(4, 2))

    inner, outer = net(), from_spikingjelly(net(), num_steps=2)
    load_into(outer, inner.state_dict())
    assert equal(outer.net.state_dict(), inner.state_dict())
    load_into(outer, from_spikingjelly(net()).state_dict())
    with pytest.raises(ValueError, match=r"unexpected: 5\.weight"):
        load_into(outer, {**inner.state_dict(), "5.weight": torch.ones(1)})
