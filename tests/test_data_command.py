"""`snnprobe data`: the table of what is there, what is missing, and downloads."""

import json
import re

import pytest
from click.testing import CliRunner
from image_files import write_cifar10, write_images

from snn_probe.commands.data import data
from snn_probe.data import DATASETS


@pytest.fixture(autouse=True)
def no_root(monkeypatch, tmp_path_factory):
    monkeypatch.delenv("SNNPROBE_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def run(*arguments):
    result = CliRunner().invoke(data, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output.splitlines()


def cells(line):
    return re.split(r" {2,}", line)


def test_all_sets_are_listed_with_what_is_known_without_a_root():
    lines = run()
    assert cells(lines[0]) == ["name", "kind", "input", "classes", "train", "validation", "test", "size", "found"]
    assert [cells(line)[0] for line in lines[1 : 1 + len(DATASETS)]] == list(DATASETS)
    assert cells(lines[1]) == [
        "digits", "images", "1x8x8", "10", "1,258", "179", "360", "-", "comes with scikit-learn"
    ]  # fmt: skip
    rows = {cells(line)[0]: cells(line) for line in lines[1 : 1 + len(DATASETS)]}
    assert rows["cifar100"][1:4] == ["images", "3x32x32", "100"] and rows["cifar100"][-1] == "not found"
    assert rows["cifar10-dvs"][1:4] == ["events", "2x48x48", "10"] and rows["image-folder"][2:4] == ["-", "-"]
    (said,) = lines[1 + len(DATASETS) :]  # once, not for each set
    absent = ", ".join(name for name in DATASETS if name not in ("digits", "event-digits"))
    assert said == (
        f"{absent}: the folder of the data sets is not known; give it with --data-root DIR (root), "
        "or set the environment variable SNNPROBE_DATA."
    )


def test_what_is_found_is_counted_and_measured(tmp_path, monkeypatch):
    write_cifar10(tmp_path)
    folder = tmp_path / "cifar-10-batches-py"
    size = sum(file.stat().st_size for file in folder.iterdir())
    assert 1e6 < size < 9e6  # 240 images of 3072 bytes, most of them as two bytes of text
    expected = ["cifar10", "images", "3x32x32", "10", "180", "20", "40", f"{size / 1e6:.3g} MB", str(folder)]
    header, line = run("--data-root", tmp_path, "cifar10")
    assert cells(line) == expected and header.index("found") == line.index(str(folder))
    monkeypatch.setenv("SNNPROBE_DATA", str(tmp_path))
    assert run("cifar10", "cifar10")[1:] == [line]


def test_image_folders_say_their_classes_and_size(tmp_path):
    write_images(tmp_path / "train", {"ant": 10, "bee": 10}, size=(20, 12))
    write_images(tmp_path / "val", {"ant": 2})
    lines = run("image-folder", "--data-root", tmp_path)
    assert cells(lines[1])[1:7] == ["images", "3x12x12", "2", "18", "2", "2"] and cells(lines[1])[8] == str(tmp_path)
    assert len(lines) == 2


def test_what_is_wrong_is_said_below_the_table(tmp_path):
    write_cifar10(tmp_path)
    broken = tmp_path / "cifar-10-batches-py" / "test_batch"
    broken.write_bytes(b"")
    lines = run("--data-root", tmp_path, "cifar10", "n-mnist", "image-folder")
    assert cells(lines[1])[4:] == ["-", "-", "-", *cells(lines[1])[7:]] and cells(lines[1])[-1].endswith("(see below)")
    assert [cells(line)[-1] for line in lines[2:4]] == ["not found"] * 2
    problems = dict(line.split(": ", 1) for line in lines[4:])
    assert problems["cifar10"].startswith(f"{broken} is no batch of CIFAR or is cut off (EOFError); unpack ")
    assert problems["n-mnist"].startswith(f"n-mnist is not below {tmp_path}: expected, ")
    assert problems["image-folder"].startswith(f"{tmp_path} has no image-folder: expected ")
    write_images(tmp_path / "train", {"ant": 10})
    lines = run("--data-root", tmp_path, "image-folder")
    assert lines[2] == (
        f"image-folder: {tmp_path} has train but neither val nor test; "
        f"put the held-out images in {tmp_path}/val/CLASS/."
    )
    assert cells(lines[1])[-1] == f"{tmp_path} (see below)"


def test_unknown_names_are_wrong_usage():
    own = ", MODULE:FACTORY of your own, or a folder of images or frames by class"
    for arguments, more in ((["mnist"], own), (["--download", "mnist"], "")):
        result = CliRunner().invoke(data, arguments)
        assert result.exit_code == 2
        assert f"'mnist' is no data set here; give one of {', '.join(DATASETS)}{more}." in result.output


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("digits", r"^digits comes with scikit-learn; there is nothing to download\.$"),
        (
            "imagenet",
            r"^imagenet cannot be downloaded by a program; .* from https://image-net\.org/download\.php so\.$",
        ),
        ("n-mnist", r"^n-mnist is not below .*: expected, .*https://www\.garrickorchard\.com/datasets/n-mnist"),
    ],
)
def test_what_cannot_be_downloaded_says_where_it_is(tmp_path, name, said):
    result = CliRunner().invoke(data, ["--data-root", str(tmp_path), "--download", name])
    assert isinstance(result.exception, ValueError | OSError)  # which the group turns into a sentence and status 1
    assert re.search(said, str(result.exception))
    assert "\n" not in str(result.exception)


def test_a_download_that_is_not_needed_is_not_made(tmp_path):
    write_cifar10(tmp_path)
    assert cells(run("--data-root", tmp_path, "--download", "cifar10")[3])[4:7] == ["180", "20", "40"]


def test_the_list_as_json(tmp_path):
    write_cifar10(tmp_path)
    found = {one["name"]: one for one in json.loads("\n".join(run("--json", "--data-root", tmp_path)))}
    assert list(found) == list(DATASETS)
    assert found["digits"] == {
        "name": "digits", "kind": "images", "input_shape": [1, 8, 8], "num_classes": 10, "num_bytes": 0, "problem": None,
        "counts": {"train": 1258, "validation": 179, "test": 360}, "place": "comes with scikit-learn",
    }  # fmt: skip
    cifar = found["cifar10"]
    assert cifar["place"].startswith(str(tmp_path)) and cifar["num_bytes"] > 0
    assert list(cifar["counts"]) == ["train", "validation", "test"]
    unknown = ("input_shape", "num_classes", "counts", "place")
    assert [found["image-folder"][name] for name in unknown] == [None] * 4
    assert found["image-folder"]["problem"].startswith(f"{tmp_path} has no image-folder: expected ")
    assert [one["name"] for one in json.loads("\n".join(run("--json", "event-digits")))] == ["event-digits"]
