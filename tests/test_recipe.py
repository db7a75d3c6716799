"""Recipes: what a text becomes, and every sentence that refuses one."""

import re
from pathlib import Path

import pytest

from snn_probe.studies.measure import _MEASURES, _SLICES
from snn_probe.studies.recipe import epochs_of, parse_recipe, read_recipe
from snn_probe.studies.recipe_probes import KINDS

TIMESTEPS = "[probes.timesteps]"
ANALYSES = Path(__file__).parent.parent / "analyses"
PLAIN = """
title = "A study"
[data]
dataset = "digits"
probe_split = "validation"
[train]
epochs = 4
num_steps = 2
train_examples = [40, 60]
seeds = [0, 3]
[arms.sdt]
[arms.trt]
method = "trt"
hyperparameters = { strength = 1e-3, decay = 0.5 }
[arms.trt-l2]
method = "trt"
hyperparameters = { strength = 1e-3, decay = 0 }
[arms.tit]
stages = [{ epochs = 2, num_steps = 1 }, { epochs = 3 }]
[probes.fisher]
epochs = [1, "last"]
num_examples = 16
[probes.relaxed]
kind = "eigenvalues"
forward = "relaxed"
[probes.timesteps]
"""


def refused(text):
    with pytest.raises(ValueError) as found:
        parse_recipe(text)
    said = str(found.value)
    assert "\n" not in said and said.endswith(".")
    return said


def test_a_recipe_becomes_configurations_that_share_everything_but_the_arm():
    recipe = parse_recipe(PLAIN)
    assert (recipe.title, recipe.sizes, recipe.seeds) == ("A study", (40, 60), (0, 3))
    assert list(recipe.arms) == ["sdt", "trt", "trt-l2", "tit"]
    trt = recipe.config("trt", 60, 3)
    assert (trt.method, trt.epochs, trt.num_steps, trt.train_examples, trt.seed) == ("trt", 4, 2, 60, 3)
    assert (trt.hyperparameters["strength"], trt.hyperparameters["decay"]) == (1e-3, 0.5)
    tit = recipe.config("tit", 40, 0)
    assert (tit.epochs, [s.num_steps for s in tit.schedule()], tit.method) == (5, [1, 2], "sdt")
    sdt, other = recipe.config("sdt", 60, 3).to_dict(), trt.to_dict()
    assert {key for key in sdt if sdt[key] != other[key]} == {"method", "hyperparameters"}


def test_groups_are_named_only_where_there_are_several_sizes():
    assert [parse_recipe(PLAIN).group(size) for size in (40, 60)] == ["40 examples", "60 examples"]
    one = parse_recipe('title = "x"\n[arms.sdt]')
    assert (one.sizes, one.seeds, one.group(None)) == ((None,), (0,), "")


def test_probes_get_the_defaults_of_their_kind_and_what_the_recipe_says():
    fisher, relaxed, timesteps = parse_recipe(PLAIN).probes
    assert (fisher.kind, fisher.split, fisher.num_examples, fisher.options["group_size"]) == (
        "fisher",
        "validation",
        16,
        1,
    )
    assert (relaxed.name, relaxed.kind, relaxed.options["forward"], relaxed.options["k"]) == (
        "relaxed", "eigenvalues", "relaxed", 5,
    )  # fmt: skip
    assert (timesteps.split, timesteps.num_examples, timesteps.options) == ("test", "all", {"num_steps": None})


def test_last_is_the_last_epoch_of_each_arm():
    recipe = parse_recipe(PLAIN)
    fisher, relaxed, _ = recipe.probes
    assert epochs_of(fisher, recipe.config("sdt", 40, 0)) == [1, 4]
    assert epochs_of(fisher, recipe.config("tit", 40, 0)) == [1, 5]
    assert epochs_of(relaxed, recipe.config("tit", 40, 0)) == [5]


def test_every_kind_can_be_measured_and_is_allowed_without_options():
    assert set(KINDS) == set(_MEASURES) | set(_SLICES)
    text = 'title = "x"\n[arms.sdt]\n' + "".join(f"[probes.{kind}]\n" for kind in KINDS)
    assert [probe.kind for probe in parse_recipe(text).probes] == list(KINDS)


@pytest.mark.parametrize(
    ("instead_of", "text", "said"),
    [
        ("", "seeds = [1]", "The recipe has the unknown key 'seeds'; allowed are title, data, train, arms, probes."),
        ("probe_split", "splits", r"\[data\] has the unknown key 'splits'; allowed are dataset, image_size,"),
        ("num_steps = 2", "steps = 2", r"\[train\] has the unknown key 'steps'; allowed are seeds, method, model,"),
        ("num_steps = 2", "seed = 2", r"\[train\] has the unknown key 'seed'; allowed are seeds,"),
        ("[arms.sdt]", "[arms.sdt]\nseed = 1", r"\[arms.sdt\] has the unknown key 'seed'; allowed are method, model,"),
        ("[arms.sdt]", "[arms.sdt]\ntrain_examples = 9", r"\[arms.sdt\] has the unknown key 'train_examples'; allowed"),
        ("[arms.sdt]", '[arms.sdt]\nmethod = "std"', r"\[arms.sdt\]: method is 'std'; give one of 'sdt', 'tet',"),
        ("decay = 0 ", "decai = 0 ", r"\[arms.trt-l2\]: trt has no hyperparameter 'decai'; it has strength, decay,"),
        ("[arms.sdt]", '[arms."a/b"]', r"\[arms.'a/b'\] cannot be part of a file name; use letters, digits,"),
        ("[arms.sdt]", "[arms]\nsdt = 1", r"\[arms\] has sdt = 1; give a table \[arms.sdt\]."),
        ("forward =", "backward =", r"\[probes.relaxed\] has the unknown key 'backward'; allowed are kind, epochs,"),
        ('"relaxed"', '"tense"', r"\[probes.relaxed\] has forward 'tense'; give one of 'spiking', 'relaxed'."),
        ('kind = "eigenvalues"', "", r"\[probes.relaxed\] has kind 'relaxed'; give as its name or as kind one of"),
        ('[1, "last"]', "[1, 9]", r"\[probes.fisher\] has epoch 9, but arm 'sdt' has 4 epochs; give epochs up"),
        ('[1, "last"]', "[0]", r"\[probes.fisher\] has epochs \[0\]; give a list of whole numbers from 1, or 'last'"),
        ("num_examples = 16", "num_examples = 0", r"\[probes.fisher\] has num_examples 0; give a whole number of"),
        ("num_examples = 16", "group_size = 1.5", r"\[probes.fisher\] has group_size 1.5; give a whole number of at"),
        (TIMESTEPS, "[probes.landscape]\nrange = -1", r"\[probes.landscape\] has range -1; give a number"),
        (TIMESTEPS, "[probes.eigenvalues]\ntol = 1", r"\[probes.eigenvalues\] has tol 1; give a number above 0 and"),
        (TIMESTEPS, '[probes.plane]\nobjectives = ["own"]', r"\[probes.plane\] has objectives \['own'\]; give"),
        ("[0, 3]", "[0, 0]", r"\[train\] has seeds \[0, 0\]; give different whole numbers of at least 0,"),
        ("[40, 60]", "[0]", r"\[train\] has train_examples \[0\]; give different whole numbers of at least 1,"),
        ('"digits"', '"digit"', "dataset is 'digit'; give one of 'digits', 'event-digits',"),
        ('"validation"', '"dev"', r"\[data\] has probe_split 'dev'; give one of 'train', 'validation', 'test'."),
        ('"A study"', '""', "title is ''; give a line of text such as title ="),
        ("[0, 3]", "[0, 3", r"The recipe is not TOML \(.*\); correct it there."),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_sentence(instead_of, text, said):
    assert instead_of in PLAIN
    assert re.match(said, refused(PLAIN.replace(instead_of, text, 1) if instead_of else text + PLAIN))


def test_a_recipe_needs_an_arm():
    assert refused('title = "x"') == "arms is {}; give at least one table [arms.NAME]."


def test_trt_without_its_control_is_warned_of():
    assert parse_recipe(PLAIN).warnings() == []
    (said,) = parse_recipe(
        PLAIN.replace("decay = 0 ", "decay = 0.1 ").replace("[arms.trt-l2]", "[arms.other]")
    ).warnings()[:1]
    assert said.startswith(
        "Arm 'trt' is TRT, and no arm is its control; add one with the same hyperparameters and decay"
    )
    other_strength = PLAIN.replace("strength = 1e-3, decay = 0 ", "strength = 1e-4, decay = 0 ")
    assert len(parse_recipe(other_strength).warnings()) == 1


def test_files_that_are_no_recipe_are_named(tmp_path):
    with pytest.raises(
        ValueError, match=r"none.toml cannot be read .No such file or directory.; give a recipe such as"
    ):
        read_recipe(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"bad.toml is no UTF-8 text; give a recipe such as"):
        read_recipe(tmp_path / "bad.toml")
    (tmp_path / "wrong.toml").write_text('title = "x"\ncolour = 1')
    with pytest.raises(ValueError, match=r"wrong.toml: The recipe has the unknown key 'colour'; allowed are title,"):
        read_recipe(tmp_path / "wrong.toml")


@pytest.mark.parametrize("path", sorted(ANALYSES.glob("*.toml")), ids=lambda path: path.stem)
def test_the_recipes_here_can_be_read_and_have_their_controls(path):
    recipe = read_recipe(path)
    assert recipe.warnings() == []
    assert len(recipe.seeds) >= 3 or "one seed" in recipe.title  # too few for a verdict, and said so
