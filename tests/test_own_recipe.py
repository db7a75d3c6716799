"""Recipes that name a network, data and an objective of the user's own: they run when the user says the names too."""

import json
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from commands import failed, run
from image_files import write_images
from own_code import own_place  # noqa: F401  the fixture place

import snn_probe
from snn_probe import own, results, study
from snn_probe.checkpoint import build_model, load
from snn_probe.data import batches
from snn_probe.probes import fisher_trace, loss_slice
from snn_probe.studies.products import Where
from snn_probe.studies.recipe import parse_recipe
from snn_probe.study import run_study
from snn_probe.system import load_split

EXAMPLE = Path(snn_probe.__file__).parents[1] / "analyses" / "own_objective.py"
LATE = "own_objective:LateTET"
RECIPE = """
title = "All of it my own"
[data]
dataset = "mydata:load"
[train]
model = "mynet:build"
num_steps = 2
epochs = 1
batch_size = 16
[arms.sdt]
[arms.late]
method = "own_objective:LateTET"
hyperparameters = { growth = 0.5 }
[probes.fisher]
num_examples = 8
[probes.landscape]
objectives = ["sdt", "own_objective:LateTET"]
points = 3
num_examples = 8
[probes.gradients]
num_examples = 8
"""
CODE = ("--model", "mynet:build", "--data", "mydata:load", "--objective", LATE)


@pytest.fixture
def here(place, monkeypatch):
    monkeypatch.setattr(study, "conclude", lambda tables, folder, **figures: None)
    shutil.copy(EXAMPLE, place / "own_objective.py")
    (place / "my.toml").write_text(RECIPE)
    return place


def documents(folder):
    return {path.relative_to(folder): json.loads(path.read_text()) for path in sorted(folder.glob("results/*/*.json"))}


def without_machine(document):
    """A result without the names and times of the process that measured it."""
    return {**document, "environment": None, "source": {**document["source"], "environment": None}}


def forget():
    for name in ("mynet", "mydata", "own_objective"):
        sys.modules.pop(name, None)


def test_the_numbers_are_those_of_the_functions(here):
    run("reproduce", "my.toml", *CODE, "--out", "one")
    with own.allowing(["mynet:build", "mydata:load", LATE]):
        checkpoint = load("one/runs/late-seed0/checkpoints/epoch_0001.pt")
        assert (checkpoint.config.method, checkpoint.config.hyperparameters) == (LATE, {"growth": 0.5})
        model, config = build_model(checkpoint), checkpoint.config
        data = batches(load_split(config, "train", num_examples=8), 64)
        stored = results.load("one/results/fisher/late-seed0-epoch0001.json")
        pd.testing.assert_frame_equal(stored.table, fisher_trace(model, data).table)
        losses = {"sdt": parse_recipe(RECIPE).config("sdt", None, 0).objective(), LATE: own.found(LATE, "")()}
        expected = loss_slice(model, data, losses, alphas=[-1.0, 0.0, 1.0]).table
    stored = results.load("one/results/landscape/late-seed0-epoch0001.json").table.drop(columns="directions")
    pd.testing.assert_frame_equal(stored, expected)


def test_other_processes_may_run_what_the_user_named_and_give_the_same(here):
    run("reproduce", "my.toml", *CODE, "--out", "one")
    run("reproduce", "my.toml", *CODE, "--out", "two", "--jobs", 2)
    one, two = documents(here / "one"), documents(here / "two")
    assert len(one) == 6 and one.keys() == two.keys()
    for path in one:
        assert without_machine(one[path]) == without_machine(two[path])


def test_what_is_done_is_kept_and_a_report_imports_nothing(here, monkeypatch):
    run("reproduce", "my.toml", *CODE, "--out", "one")
    again = run("reproduce", "my.toml", *CODE, "--out", "one")
    assert "Nothing is missing of the runs and results." in again.stderr
    forget()
    (here / "imported").unlink()
    assert len(study.tables("one")["metrics"]) == 2
    assert not {"mynet", "mydata", "own_objective"} & set(sys.modules) and not (here / "imported").exists()


def test_a_hyperparameter_that_is_taken_out_makes_a_run_stale(here):
    run("reproduce", "my.toml", *CODE, "--out", "one")
    (here / "my.toml").write_text(RECIPE.replace("hyperparameters = { growth = 0.5 }", ""))
    run("reproduce", "my.toml", *CODE, "--out", "one")
    assert json.loads((here / "one/runs/late-seed0/config.json").read_text())["hyperparameters"] == {"growth": 1.0}
    again = run("reproduce", "my.toml", *CODE, "--out", "one")
    assert "Nothing is missing of the runs and results." in again.stderr


@pytest.mark.parametrize("lacking", ["--model", "--data", "--objective"])
def test_without_the_name_nothing_is_run_and_nothing_written(here, lacking):
    given = dict(zip(CODE[::2], CODE[1::2], strict=True))
    name = given.pop(lacking)
    arguments = [part for pair in given.items() for part in pair]
    for more in ((), ("--dry-run",)):
        assert failed("reproduce", "my.toml", *arguments, "--out", "one", *more) == (
            f"The configuration names '{name}', code that is no part of this program and is never run because a file "
            f"says so; if you know and trust it, give {lacking} {name} (from Python: snn_probe.own.allow('{name}'))."
        )
    assert not (here / "imported").exists() and not (here / "one").exists()


def test_a_name_that_the_recipe_does_not_have_is_wrong_usage(here):
    said = failed("reproduce", "my.toml", *CODE, "--model", "mynet:other", status=2)
    assert said == "--model is 'mynet:other', but the recipe names 'mynet:build'; give that, or leave it out."
    (here / "plain.toml").write_text('title = "x"\n[arms.sdt]')
    said = failed("reproduce", "plain.toml", "--objective", LATE, status=2)
    assert (
        said == f"--objective is '{LATE}', but the recipe names no code of your own there; give that, or leave it out."
    )


def test_tensors_cannot_be_given_to_other_processes_by_a_function_of_this_one(here):
    own.allow("mine:data", lambda: None)
    recipe = parse_recipe(
        'title = "x"\n[train]\nepochs = 1\ntrain_examples = 20\n[arms.sdt]\n[arms.tet]\nmethod = "tet"'
    )
    with pytest.raises(
        ValueError, match=r"^mine:data stands for function, which other processes cannot be given; give"
    ):
        run_study(recipe, "x", Where(here / "x"), jobs=2)


def test_a_mapping_of_tensors_can(here):
    tensors = torch.rand(40, 1, 8, 8), torch.arange(40) % 4
    own.allow("mine:data", {"train": tensors, "test": tensors})
    recipe = parse_recipe('title = "x"\n[data]\ndataset = "mine:data"\n[train]\nepochs = 1\nseeds = [0, 1]\n[arms.sdt]')
    run_study(recipe, "x", Where(here / "x"), jobs=2)
    assert len(study.tables(here / "x")["metrics"]) == 2


def test_a_folder_is_given_beside_the_recipe(here):
    for split in ("train", "test"):
        write_images(here / "photos" / split, {"a": 4, "b": 4}, size=(8, 8))
    text = 'title = "x"\n[data]\ndataset = "{}"\n[train]\nepochs = 1\nnum_steps = 1\n[arms.sdt]'
    (here / "photos.toml").write_text(text.format("photos"))
    assert failed("reproduce", "photos.toml", status=2) == (
        "photos.toml: dataset is the folder 'photos'; write 'image-folder', and give the folder with --data photos."
    )
    (here / "photos.toml").write_text(text.format("image-folder"))
    run("reproduce", "photos.toml", "--data", "photos", "--out", "one")
    assert (here / "one/runs/sdt-seed0/metrics.csv").exists()
