"""Results side by side say what tells them apart: in figures, in CSVs, before anything is measured."""

from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
from commands import SMALL, failed, run

import snn_probe
from snn_probe.checkpoint import build_model, load
from snn_probe.figures import draw, figure_options
from snn_probe.results import combine
from snn_probe.results import load as load_result
from snn_probe.tables.exports import csv

KEPT = sorted((Path(snn_probe.__file__).parents[1] / "trained_models").rglob("*.pt"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    run("train", *SMALL, "--eval-examples", 16, "--save-epochs", "3", "--out", folder / "run")
    last = folder / "run" / "checkpoints" / "last.pt"
    for split, count, size in (("train", 12, 1), ("test", 8, 4)):
        options = ("--num-examples", count, "--split", split, "--no-figure", "--out", folder / split)
        run("fisher", last, "--group-size", size, *options)
        run("timesteps", last, *options)
        run("landscape", last, "--plane", "--along", "eigenvectors", "--points", 2, *options)
    return folder


def words(figure):
    """What stands below a figure's axes."""
    return " ".join(legend.get_title().get_text() for legend in figure.legends).replace("\n", " ")


def drawn(name, *results):
    return draw(name, combine(results), **figure_options(name, list(results)))


@pytest.mark.parametrize(("name", "file"), [("timestep_accuracy", "timesteps"), ("fisher_trace", "fisher")])
def test_a_figure_says_on_which_examples(folder, name, file):
    train, test = (load_result(folder / split / f"{file}_last.json") for split in ("train", "test"))
    assert words(drawn(name, train)).endswith("12 examples of train")
    assert words(drawn(name, test)).endswith("8 examples of test")
    if file == "timesteps":
        assert words(drawn(name, train, test.__class__(test.probe, test.table, test.settings, {**test.source, "epoch": 9}))
                     ).endswith("12 of train, 8 of test")  # fmt: skip


def test_estimators_that_differ_are_named_alone(folder):
    results = [load_result(folder / split / "fisher_last.json") for split in ("train", "test")]
    with pytest.raises(ValueError, match=r"^These fisher_trace results differ in group_size, so they cannot share"):
        figure_options("fisher_trace", results)


def test_a_csv_has_a_column_for_each_setting_that_differs(folder):
    train, test = (load_result(folder / split / "fisher_last.json") for split in ("train", "test"))
    table = pd.read_csv(StringIO(csv([train, test])))
    rows = table[["split", "num_examples", "group_size"]].drop_duplicates().to_numpy().tolist()
    assert rows == [["train", 12, 1], ["test", 8, 4]]
    for split, result in (("train", train), ("test", test)):
        assert table.loc[table["split"] == split, "trace"].tolist() == pytest.approx(result.table["trace"].tolist())
    assert not {"split", "num_examples", "group_size"} & set(pd.read_csv(StringIO(csv([train]))))


def test_the_edges_of_a_surface_have_symbols_and_the_words_stand_below(folder):
    result = load_result(folder / "train" / "landscape_last.json")
    figure = drawn("loss_surface", result)
    surfaces = [ax for ax in figure.axes if ax.name == "3d"]
    assert surfaces and {ax.get_xlabel() for ax in surfaces} == {r"$\alpha$"}
    assert words(figure) == r"12 examples of train; $\alpha$ (eigenvector 1); $\beta$ (eigenvector 2)"


def test_the_file_of_an_epoch_is_called_by_its_number(folder):
    """Beside last.pt of the same epoch, which alone tells them apart."""
    checkpoints = folder / "run" / "checkpoints"
    run("timesteps", checkpoints / "epoch_0003.pt", checkpoints / "last.pt", "--num-examples", 8, "--no-figure",
        "--out", folder / "both")  # fmt: skip
    results = [load_result(folder / "both" / f"timesteps_{name}.json") for name in ("epoch_0003", "last")]
    (legend,) = drawn("timestep_accuracy", *results).legends
    assert {text.get_text() for text in legend.get_texts()} == {"epoch 3", "last"}


def test_a_missing_file_is_named_before_anything_is_measured(folder, tmp_path):
    last = folder / "run" / "checkpoints" / "last.pt"
    said = failed("timesteps", last, tmp_path / "no.pt", "--num-examples", 8, "--out", tmp_path / "out")
    assert said == f"{tmp_path / 'no.pt'} does not exist; give a checkpoint file such as <run>/checkpoints/last.pt."
    assert not (tmp_path / "out").exists()


def test_points_that_were_kept_of_another_slice_are_given_up_aloud(folder, tmp_path):
    last = folder / "run" / "checkpoints" / "last.pt"
    few = ["--points", 3, "--num-examples", 8, "--no-figure"]
    run("landscape", last, *few, "--out", tmp_path)
    (tmp_path / "landscape_last.json").rename(tmp_path / "landscape_last.partial.json")
    done = run("landscape", last, *few, "--range", 0.5, "--out", tmp_path)
    assert "A slice that was begun here with other settings is given up, with 3 points." in done.stderr


@pytest.mark.parametrize("file", KEPT, ids=lambda path: "/".join(path.parts[-3:]))
def test_the_checkpoints_that_are_kept_rebuild_their_networks(file):
    checkpoint = load(file)
    assert sum(p.numel() for p in build_model(checkpoint).parameters()) == 21482
    assert checkpoint.epoch == int(file.stem.removeprefix("epoch_"))


def test_some_checkpoints_are_kept():
    assert len(KEPT) == 8
