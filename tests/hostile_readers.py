"""Every reader of files with a small sound file for it, and the ways in which that file is made hostile."""

import io
import json
import struct
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import event_data
import numpy as np
import pandas as pd
import torch
from image_files import write_batch
from mutations import BOASTING, as_json, damaged, deep_json, inflating, misstated, npy, reworded
from PIL import Image

from snn_probe import checkpoint, cli, report, results, study
from snn_probe.checkpoint import build_model, make_checkpoint
from snn_probe.commands import show
from snn_probe.config import RunConfig
from snn_probe.data import (
    cifar,
    decoded,
    event_files,
    folders,
    frame_cache,
    frame_folder,
    images,
    neuromorphic,
    recordings,
)
from snn_probe.own import weights
from snn_probe.runs import resuming, tensorboard
from snn_probe.runs.run_folder import RunFolder
from snn_probe.runs.state import TrainingState
from snn_probe.studies import products
from snn_probe.studies.plan import plan
from snn_probe.studies.plan import products as products_of
from snn_probe.studies.recipe import read_recipe
from snn_probe.system import build_network, network_of

SEED = 20
CONFIG = RunConfig(num_steps=2, epochs=2, width=0.1, method="trt")
NETWORK = network_of(CONFIG)
ROW = {"epoch": 1, "seconds": 0.5, "learning_rate": 0.1, "train_loss": 0.25, "train_accuracy": 0.5, "objective": 2.0,
       "validation_loss": 2.0, "validation_accuracy": 0.5, "test_loss": 2.0, "test_accuracy": 0.25}  # fmt: skip
RECIPE = """title = "A small study"
[data]
dataset = "digits"
[train]
epochs = 2
num_steps = 2
width = 0.25
learning_rate = 0.001
train_examples = [40, 80]
seeds = [0, 1]
hyperparameters = {decay = 0.5}
[arms.trt]
method = "trt"
[arms.plain]
method = "trt"
hyperparameters = {decay = 0.0}
[probes.fisher]
epochs = [1, "last"]
num_examples = 8
[probes.plane]
range = 0.5
objectives = ["sdt"]
"""


@dataclass(frozen=True)
class Reader:
    """``make`` writes a sound folder, ``read`` reads it, ``cases`` are contents of ``file`` in it. ``named``: what a
    refusal must name beside the file. ``silent``: a cache or an extra, which refuses nothing and is made again or left out."""

    name: str
    file: str
    make: Callable[[Path], object]
    read: Callable[[Path], object]
    cases: Callable[[bytes], Iterable[bytes]]
    named: tuple[str, ...] = ()
    silent: bool = False
    runs: bool = field(default=True)  # whether pickles that run code are among the cases


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def bytes_of(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def small_network():
    return build_network(CONFIG, NETWORK)


# --- checkpoints, resume states, weights ---


def a_checkpoint(folder):
    card = {"run": "r", "kind": "last", "epoch": 2, "metrics": ROW, "environment": {"torch": "2"}}
    checkpoint.save(make_checkpoint(small_network(), CONFIG, **card), folder / "last.pt")


def odd_states(state):
    """Weights of the same names that are no plain finite tensors."""
    name, tensor = next((name, tensor) for name, tensor in state.items() if tensor.ndim)
    flat = torch.zeros(1)
    odd = [
        torch.full_like(tensor, float("nan")), torch.where(torch.arange(tensor.numel()).view(tensor.shape) == 0, torch.inf, tensor),
        torch.full_like(tensor, -torch.inf), flat.expand(10**12), torch.empty(10**12, device="meta"), tensor.to_sparse(), 1.0, None, "x", [tensor],
        {"deeper": tensor}, tensor.double(), tensor.to(torch.complex64), tensor[:0], tensor[None], torch.empty(0, 10**15),
        torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8), tensor.bool(), torch.nn.Parameter(tensor), flat.expand(10**6),
        torch.as_strided(torch.zeros(4), (10**6, 10**6), (0, 0)),
    ]  # fmt: skip
    changed = [{**state, name: one} for one in odd]
    return [
        *changed,
        {},
        [],
        None,
        {**state, "more": tensor},
        {k: v for k, v in state.items() if k != name},
        {1: tensor},
    ]


def checkpoint_cases(content):
    found = torch.load(io.BytesIO(content), weights_only=True)
    card, state = json.loads(found["card"]), found["state_dict"]
    yield from damaged(content, SEED, 170)
    for changed in misstated(card, SEED, 150):
        yield bytes_of({**found, "card": json.dumps(changed)})
    for text in deep_json():
        yield bytes_of({**found, "card": text.decode()})
    for odd in odd_states(state):
        plain = isinstance(odd, dict) and all(
            isinstance(x, torch.Tensor) and x.layout == torch.strided for x in odd.values()
        )
        small = plain and all(x.numel() < 10**5 and x.device.type == "cpu" and not x.is_quantized for x in odd.values())
        digest = checkpoint.weights_digest(odd) if small and all(isinstance(k, str) for k in odd) else card["sha256"]
        yield bytes_of({**found, "state_dict": odd, "card": json.dumps({**card, "sha256": digest})})
    for changed in misstated({key: value for key, value in found.items() if key != "state_dict"}, SEED, 25):
        yield bytes_of({**changed, "state_dict": state} if isinstance(changed, dict) else changed)
    yield from swollen(content)


def swollen(content):
    """Torch files that say more than they have: a storage of 4 GB, and members that unpack to 2 GB."""
    names = zipfile.ZipFile(io.BytesIO(content)).namelist()
    pickled = next(name for name in names if name.endswith("data.pkl"))
    yield inflating(content, pickled, 2**28)
    yield inflating(content, next(name for name in names if "/data/" in name), 2**28)
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in names:
            data = old.read(name)
            if name == pickled:  # every small number becomes 2e9
                data = b"".join(b"J" + struct.pack("<i", 2_000_000_000) if piece == b"K\x01" else piece
                                for piece in (data[i : i + 2] for i in range(0, len(data), 2)))  # fmt: skip
            new.writestr(name, data)
    yield buffer.getvalue()


def read_checkpoint(folder):
    found = checkpoint.load(folder / "last.pt")
    assert all(x.isfinite().all() for x in found.state_dict.values())
    show.describe(folder / "last.pt")
    results.strict_json(show.document(folder / "last.pt"))
    try:
        build_model(found)
    except ValueError as error:  # of the network, which has no file
        assert "\n" not in str(error)


def a_run(folder):
    put(folder / "config.json", as_json(CONFIG.to_dict()))
    pd.DataFrame([ROW, {**ROW, "epoch": 2}]).to_csv(folder / "metrics.csv", index=False)
    state = TrainingState(CONFIG, NETWORK, [], torch.device("cpu"))
    for p in state.step.model.parameters():
        p.grad = torch.ones_like(p)
    state.step.optimizer.step()
    state.finish(1, ROW)
    RunFolder(folder).write_resume(state.saved())


def resume_cases(content):
    found = torch.load(io.BytesIO(content), weights_only=True)
    yield from damaged(content, SEED, 110)
    for changed in misstated(json.loads(found["plain"]), SEED, 60):
        yield bytes_of({**found, "plain": json.dumps(changed)})
    for text in deep_json():
        yield bytes_of({**found, "plain": text.decode()})
    for odd in odd_states(found["model"]):
        yield bytes_of({**found, "model": odd})
    for part in ("optimizer", "scaler"):
        for changed in misstated(found[part] or {"scale": 1.0, "growth_factor": 2.0, "_growth_tracker": 0}, SEED, 30):
            yield bytes_of({**found, part: changed})
    yield from swollen(content)


def read_resume(folder):
    run = RunFolder(folder)
    state = TrainingState(CONFIG, NETWORK, [], torch.device("cpu"))
    resuming.restore(state, run.read_resume(), run)
    assert 0 <= state.epoch <= CONFIG.epochs and len(state.rows) == state.epoch
    state.set_rate(min(state.epoch + 1, CONFIG.epochs))
    weights = list(state.step.model.parameters())
    assert all(p.isfinite().all() for p in weights)
    for p in weights:
        p.grad = torch.ones_like(p)
    state.step.optimizer.step()


def read_config(folder):
    RunFolder(folder).begin(CONFIG.to_dict(), resume=True, complete=resuming.complete)
    show.describe(folder)


def read_metrics(folder):
    run = RunFolder(folder)
    rows = products._metrics(run)
    assert {"epoch", "seconds"} <= set(rows) or not len(rows)
    tensorboard._rows(folder)
    cli._metrics(folder)


def some_weights(suffix):
    def make(folder):
        state = small_network().state_dict()
        if suffix == "safetensors":
            put(folder / "w.safetensors", packed(state))
        elif suffix == "pth.tar":
            put(
                folder / "w.pth.tar", bytes_of({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}})
            )
        else:
            torch.save(state, folder / f"w.{suffix}", _use_new_zipfile_serialization=suffix != "pth")

    return make


def packed(state, change=lambda header: header):
    header, data = {}, b""
    for name, tensor in state.items():
        raw = tensor.contiguous().numpy().tobytes()
        kind = {torch.float32: "F32", torch.int64: "I64", torch.bool: "BOOL"}[tensor.dtype]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = change(header)
    text = text if isinstance(text, bytes) else json.dumps(text).encode()
    return struct.pack("<Q", len(text)) + text + data


def weight_cases(content):
    yield from damaged(content, SEED, 100)
    for odd in odd_states(small_network().state_dict()):
        yield bytes_of(odd)
        yield bytes_of({"model": odd, "epoch": 1})


def zip_weight_cases(content):
    yield from weight_cases(content)
    yield from swollen(content)


def safetensor_cases(content):
    yield from damaged(content, SEED, 120)
    state = small_network().state_dict()
    header = {}
    packed(state, lambda found: header.update(found) or found)
    for changed in misstated(header, SEED, 120):
        yield packed(state, lambda _, changed=changed: changed)
    for text in deep_json():
        yield packed(state, lambda _, text=text: text)
    for value in (torch.nan, torch.inf):
        yield packed({name: torch.full_like(x, value) if x.is_floating_point() else x for name, x in state.items()})


def read_weights(folder):
    (file,) = (path for path in folder.iterdir() if path.name.startswith("w."))
    found = weights.read_weights(file)
    assert all(x.isfinite().all() for x in found.values())
    try:
        weights.load_into(small_network(), found)
    except ValueError as error:
        assert "\n" not in str(error)


# --- results, recipes, studies ---


def a_result(folder):
    table = pd.DataFrame({"layer": ["a", "b"], "timestep": [1, 2], "trace": [0.5, np.inf], "done": [True, False]})
    source = {"run": "r", "epoch": 1, "kind": "last", "config": CONFIG.to_dict(), "made_from": "x"}
    results.save(results.Result("fisher", table, {"num_examples": 8}, source, {"torch": "2"}), folder / "fisher.json")


def json_cases(count):
    def cases(content):
        yield from damaged(content, SEED, count // 2)
        for changed in misstated(json.loads(content), SEED, count):
            yield as_json(changed)
        yield from deep_json()

    return cases


def read_result(folder):
    found = results.load(folder / "fisher.json")
    results.combine([found])
    show.describe(folder / "fisher.json")
    results.strict_json(show.document(folder / "fisher.json"))


def text_cases(count):
    def cases(content):
        yield from damaged(content, SEED, count // 2)
        yield from reworded(content.decode(), SEED, count)

    return cases


def recipe_cases(content):
    yield from text_cases(160)(content)
    yield b"a = " + b"[" * 100_000
    yield b"a = " + b"{a=" * 5000
    yield b".".join([b"a"] * 50_000) + b" = 1"
    yield b"[" + b".".join([b"a"] * 5_000) + b"]"


def read_study_recipe(folder):
    found = read_recipe(folder / "recipe.toml")
    found.warnings()
    plan(found)


def a_study(folder):
    """A finished study of one arm and one probe, as its files."""
    recipe = 'title = "s"\n[train]\nepochs = 2\nnum_steps = 2\nwidth = 0.1\n[arms.sdt]\n[probes.hessian_trace]\n'
    put(folder / "recipe.toml", recipe)
    found = read_recipe(folder / "recipe.toml")
    made = products_of(plan(found))
    for path, product in made.items():
        if path.startswith("runs"):
            put(folder / path / "config.json", as_json(product.config.to_dict()))
            pd.DataFrame([ROW, {**ROW, "epoch": 2}]).to_csv(folder / path / "metrics.csv", index=False)
        else:
            table = pd.DataFrame({"trace": [1.0], "stderr": [0.1], "n_probes": [4]})
            source = {"made_from": product.made_from, "run": "sdt-seed0", "epoch": 2, "kind": "epoch",
                      "config": product.run.config.to_dict()}  # fmt: skip
            results.save(
                results.Result("hessian_trace", table, {"num_examples": 8, "split": "train"}, source), folder / path
            )
    config = found.config("sdt", None, 0).to_dict()
    document = {
        "format": "snn_probe.study/1", "name": "study", "title": "s", "complete": True, "recipe_sha256": found.sha256(),
        "arms": {"sdt": config}, "groups": [""], "seeds": [0], "warnings": ["w"],
        "probes": {"hessian_trace": {"name": "hessian_trace", "kind": "hessian_trace", "split": "train", "batch_size": 64,
                                     "options": {"num_probes": 4, "seed": 0}}},
        "environment": {"torch": "2.11"}, "products": {p: {"made_from": x.made_from, "seconds": 1.5} for p, x in made.items()},
    }  # fmt: skip
    put(folder / "study.json", as_json(document))
    said = {"claim": ["a"], "statement": ["A beats B"], "source": ["x"], "group": [""], "arms": ["sdt"], "effect": [1.0],
            "unit": ["points"], "low": [0.5], "high": [1.5], "n_seeds": [3], "rule": ["more"], "smallest_effect": [0.5],
            "p_corrected": [0.5], "verdict": ["undecided"], "note": [""]}  # fmt: skip
    pd.DataFrame(said).to_csv(folder / "claims.csv", index=False)
    left = {"claim": ["z"], "statement": ["Energy falls"], "group": ["150 examples"], "why": ["no table"]}
    pd.DataFrame(left).to_csv(folder / "claims_left_out.csv", index=False)
    drawn = {
        "group": ["", ""],
        "arm": ["sdt", "sdt"],
        "mean": [1.0, 2.0],
        "low": [0.5, 1.5],
        "high": [1.5, 2.5],
        "n_seeds": [2, 2],
    }
    pd.DataFrame(drawn).to_csv(mkdir(folder / "figures") / "hessian_trace.csv", index=False)
    Image.new("RGB", (4, 4)).save(folder / "figures" / "hessian_trace.png")


def mkdir(folder):
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def read_record(folder):
    """study.json, by reproduce and by report."""
    found = read_recipe(folder / "recipe.toml")
    study._check_folder(folder, study._read_record(folder).get("name", "study"))
    seconds = study._seconds(folder, plan(found))
    assert all(0 <= value < float("inf") for value in seconds.values())
    report.write_report(folder)


def read_study(folder):
    """Products, as reproduce and report find them; results that are judged."""
    tasks = plan(read_recipe(folder / "recipe.toml"))
    products.outstanding(folder, tasks)
    study._seconds(folder, tasks)
    tables = study.tables(folder)
    report.write_report(folder)
    return tables


# --- data ---


def a_batch(folder):
    rng = np.random.RandomState(0)
    write_batch(folder / "data_batch_1", rng.randint(0, 256, (2, 3, 32, 32)).astype(np.uint8), [1, 2])


def read_batch(folder):
    pixels, labels = cifar.read_batch(folder / "data_batch_1", cifar.LAYOUTS["cifar10"])
    assert pixels.shape[1:] == (3, 32, 32) and len(pixels) == len(labels)


def a_picture(suffix):
    return lambda folder: Image.fromarray(np.random.RandomState(0).randint(0, 256, (9, 12, 3)).astype(np.uint8)).save(
        folder / f"p.{suffix}"
    )


def read_picture(suffix):
    def read(folder):
        images.picture_size(str(folder / f"p.{suffix}"))
        found = images.read_image(str(folder / f"p.{suffix}"), 8, images.centre)
        assert found.shape == (3, 8, 8)

    return read


def picture_cases(count):
    return lambda content: [*damaged(content, SEED, count), *BOMBS]


def _png(width, height):
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(10**6)))
        + chunk(b"IEND", b"")
    )


BOMBS = [
    _png(2**31 - 1, 2**31 - 1), _png(100_000, 100_000), _png(0, 5), _png(20_000, 4_000), b"P6 1000000 1000000 255\n",
    b"P6 99999999999999999999 1 255\n", b"BM" + struct.pack("<IHHIIiiHHIIiiII", 10**6, 0, 0, 54, 40, 2**31 - 1, 2**31 - 1, 1, 24, 0, 0, 0, 0, 0, 0),
]  # fmt: skip


def read_class_list(folder):
    assert all(folders.read_classes(folder / "classes.txt"))


def frame_folders(suffix):
    def make(folder):
        for part, kind in (("train", "a"), ("train", "b"), ("test", "a"), ("test", "b")):
            for number in range(2):
                frames = np.full((2, 1, 2, 2), number, np.float32)
                place = mkdir(folder / part / kind) / f"{number}.{suffix}"
                np.save(place, frames) if suffix == "npy" else np.savez_compressed(place, frames=frames)

    return make


def read_frames(folder):
    info = frame_folder.describe_frames(folder, None)
    found = frame_folder.load_frames(folder, "train", info, 2, None)
    assert found.stored.isfinite().all() and found.stored.shape[1:] == (2, 1, 2, 2)


def npy_cases(content):
    yield from damaged(content, SEED, 130)
    yield from BOASTING


def npz_cases(content):
    yield from damaged(content, SEED, 130)
    name = zipfile.ZipFile(io.BytesIO(content)).namelist()[0]
    for more in [*BOASTING, b"no array", b"", npy("(1, 2, 2, 2)", more=bytes(2**24))]:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
            new.writestr(name, more)
        yield buffer.getvalue()
    yield inflating(content, name, 2**29)


EVENTS = event_data.pattern(3, 5)


def recording(suffix, content, reader, event_set):
    def read(folder):
        path = folder / f"r{suffix}"
        with neuromorphic._blaming(neuromorphic.SETS[event_set], str(path)):
            events = reader(path)
            neuromorphic.integrate(events, num_steps=2, sensor_size=(128, 128))

    return (lambda folder: put(folder / f"r{suffix}", content)), read


def event_cases(content):
    yield from damaged(content, SEED, 130)


def event_npz_cases(content):
    yield from npz_cases(content)


def gestures(folder):
    event_data.dvs128_gesture(folder, users=((1, "train"), (24, "test")))


def read_gestures(folder):
    found = recordings.listing(neuromorphic.SETS["dvs128-gesture"], folder)
    assert {one.label for part in found.splits.values() for one in part} == set(range(11))


def list_cases(content):
    yield from text_cases(90)(content)
    yield from (b"a" * 300 + b".aedat", b"../../../etc/passwd\n", b"..\n", b"/\n", b"\0.aedat\n", b"a" * 10**6)
    yield content + b'"' + b"x" * 200_000


CACHED = (3, 2, 2, 4, 4)


def a_cache(folder):
    frame_cache.kept(folder / "frames.npy", CACHED, pieces)


def pieces():
    return ((index, np.full(CACHED[1:], index, "<f2")) for index in range(CACHED[0]))


def read_cache(folder):
    assert frame_cache.kept(folder / "frames.npy", CACHED, pieces).shape == CACHED


def a_decoded(folder):
    np.save(folder / "d.npy", np.zeros((2, 3, 4, 4), np.uint8))


def read_decoded(folder):
    found = decoded._kept(folder / "d.npy", (2, 3, 4, 4))
    assert found is None or found.dtype == np.uint8


RESULT = "results/hessian_trace/sdt-seed0-epoch0002.json"
READERS = [
    Reader("checkpoint", "last.pt", a_checkpoint, read_checkpoint, checkpoint_cases),
    Reader("resume state", "resume.pt", a_run, read_resume, resume_cases),
    Reader("config.json", "config.json", a_run, read_config, json_cases(120), ("another configuration",)),
    Reader("metrics.csv", "metrics.csv", a_run, read_metrics, text_cases(80), runs=False),
    *(Reader(f"weights .{s}", f"w.{s}", some_weights(s), read_weights, zip_weight_cases if s != "pth" else weight_cases) for s in ("pt", "pth", "pth.tar")),
    Reader("weights .safetensors", "w.safetensors", some_weights("safetensors"), read_weights, safetensor_cases),
    Reader("result", "fisher.json", a_result, read_result, json_cases(120)),
    Reader("recipe", "recipe.toml", lambda folder: put(folder / "recipe.toml", RECIPE), read_study_recipe, recipe_cases),
    Reader("study.json", "study.json", a_study, read_record, json_cases(120), runs=False),
    Reader("study's recipe", "recipe.toml", a_study, read_study, text_cases(30), ("missing or stale",), runs=False),
    Reader("study's result", RESULT, a_study, read_study, json_cases(60), ("claims.csv",), runs=False),
    Reader("study's metrics", "runs/sdt-seed0/metrics.csv", a_study, read_study, text_cases(40), ("sdt-seed0",), runs=False),
    Reader("study's config", "runs/sdt-seed0/config.json", a_study, read_study, json_cases(30), ("sdt-seed0",), runs=False),
    Reader("claims.csv", "claims.csv", a_study, report.write_report, text_cases(40), runs=False),
    Reader("claims_left_out.csv", "claims_left_out.csv", a_study, report.write_report, text_cases(30), silent=True, runs=False),
    Reader("figure's numbers", "figures/hessian_trace.csv", a_study, report.write_report, text_cases(40), silent=True, runs=False),
    Reader("CIFAR batch", "data_batch_1", a_batch, read_batch, lambda content: damaged(content, SEED, 150)),
    *(Reader(f"picture .{s}", f"p.{s}", a_picture(s), read_picture(s), picture_cases(n))
      for s, n in (("png", 60), ("jpg", 60), ("bmp", 30), ("ppm", 30), ("tiff", 40), ("webp", 40))),
    Reader("class list", "classes.txt", lambda folder: put(folder / "classes.txt", "n01 tench\nn02 goldfish\n"), read_class_list, text_cases(40)),
    Reader("frames .npy", "train/a/0.npy", frame_folders("npy"), read_frames, npy_cases),
    Reader("frames .npz", "train/a/0.npz", frame_folders("npz"), read_frames, npz_cases),
    *(Reader(f"events {s}{k}", f"r{s}", *recording(s, c, r, e), n)
      for s, k, c, r, e, n in (
        (".bin", "", event_data.bin_bytes(EVENTS), event_files.read_bin, "n-mnist", event_cases),
        (".aedat", " 2", event_data.aedat2_bytes(EVENTS), event_files.read_aedat2, "cifar10-dvs", event_cases),
        (".aedat", " 3", event_data.AEDAT3_HEADER + event_data.polarity_packet(EVENTS), event_files.read_aedat3, "dvs128-gesture", event_cases),
        (".npz", "", event_data.npz_of(EVENTS), event_files.read_npz, "n-mnist", event_npz_cases))),
    Reader("gesture table", "DvsGesture/user01_led_labels.csv", gestures, read_gestures, list_cases, ("trials_to_train.txt", "cut")),
    Reader("gesture list", "DvsGesture/trials_to_train.txt", gestures, read_gestures, list_cases, ("labels.csv", "user")),
    Reader("cache of frames", "frames.npy", a_cache, read_cache, npy_cases, silent=True),
    Reader("cache of pictures", "d.npy", a_decoded, read_decoded, npy_cases, silent=True),
]  # fmt: skip
