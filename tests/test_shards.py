"""Landscapes dealt out: ``loss_slice(shard=...)``, ``snnprobe landscape --shard`` and ``snnprobe merge``."""

import json
import shutil
import signal
import subprocess
import sys
from collections import Counter

import networks
import numpy as np
import pandas as pd
import pytest
from commands import failed, run, whole_file

from snn_probe import results
from snn_probe.objectives import SDT, TET
from snn_probe.probes import landscape
from snn_probe.probes.landscape import loss_slice
from snn_probe.tables import shards

AXES = dict(alphas=[-1.0, -0.3, 0.0, 0.5, 2.0], betas=[-0.5, 0.0, 0.1, 1.0])
FEW = ("--num-examples", 8, "--points", 4)
X, Y = networks.examples(4, 4)


def sliced(model=None, **options):
    return loss_slice(model or networks.convolutional(4), [(X, Y)], [SDT(), TET()], **{**AXES, "seed": 1, **options})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a run's checkpoints."""
    folder = tmp_path_factory.mktemp("run") / "run"
    small = "--epochs 3 --train-examples 40 --batch-size 20 --num-steps 2 --learning-rate 0.01 --save-epochs 1,2"
    run("train", *small.split(), "--width", 0.25, "--out", folder)
    return folder / "checkpoints"


@pytest.fixture(scope="module")
def dealt(trained, tmp_path_factory):
    """A plane of 16 points dealt to three shards, one of them not yet done."""
    folder = tmp_path_factory.mktemp("dealt")
    for number in (1, 3):
        plane(trained, folder, f"{number}/3")
    return folder


@pytest.fixture
def two_of_three(dealt, tmp_path):
    return shutil.copytree(dealt, tmp_path / "two_of_three")


@pytest.fixture
def measured(monkeypatch):
    """The coordinates of the points that are measured from here on."""
    seen = []
    original = landscape.MovedWeights.at

    def at(self, alpha, beta):
        seen.append((alpha, beta))
        return original(self, alpha, beta)

    monkeypatch.setattr(landscape.MovedWeights, "at", at)
    return seen


def plane(trained, folder, shard=None, *more, status=0):
    given = ("--shard", shard) if shard else ()
    return run("landscape", trained / "last.pt", "--plane", *FEW, *given, *more, "--out", folder, status=status)


def document(path):
    """A result's file without what differs from process to process."""
    found = json.loads(path.read_text())
    return {key: value for key, value in found.items() if key != "environment"}


def points_of(path):
    table = results.load(path).table
    return set(zip(table["alpha"], table["beta"], strict=True))


def state_of(folder):
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


# Which points


@pytest.mark.parametrize("count", [1, 2, 3, 7, 20, 23])
def test_every_point_has_one_shard_and_shards_are_equal(count):
    points = [(a, b) for a in range(4) for b in range(5)]
    parts = [shards.own_points(points, (number, count)) for number in range(1, count + 1)]
    assert sorted(point for part in parts for point in part) == points and all(part == sorted(part) for part in parts)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("count", [2, 4, 5, 16])
def test_what_a_dead_shard_leaves_is_spread_over_the_shards_of_another_count(count):
    points = list(range(51 * 51))
    left = set(shards.own_points(points, (3, 8)))
    again = Counter(owner for point, owner in zip(points, shards.owners(points, count), strict=True) if point in left)
    expected = len(left) / count
    assert all(abs(again[number] - expected) < 4.5 * expected**0.5 for number in range(1, count + 1))


def test_shards_are_the_whole_bit_for_bit_whatever_they_know_of_each_other(measured):
    whole = sliced()
    measured.clear()
    first = sliced(shard=(1, 3))
    second = sliced(shard=(2, 3), elsewhere={"first": first})
    rest = sliced(shard=(1, 1), elsewhere={"first": first, "second": second})
    assert len(measured) == len(set(measured)) == 20
    assert [len(part.table) for part in (first, second, rest)] == [14, 14, 12]
    joined = shards.merged({"a": rest, "b": first, "c": second})
    pd.testing.assert_frame_equal(joined.table, whole.table, check_exact=True)
    assert joined.settings == whole.settings
    assert shards.holes(joined) == [] and len(shards.holes(first)) == 13


def test_a_shard_resumes_its_own_points_alone(measured):
    parts = []
    first = sliced(shard=(2, 3), save=parts.append, save_every=0.0)
    measured.clear()
    again = sliced(shard=(2, 3), resume=parts[2], elsewhere={"other": sliced(shard=(1, 3))})
    assert len(measured) == 7 + 4
    pd.testing.assert_frame_equal(again.table, first.table, check_exact=True)


def test_a_shard_of_no_points_is_an_empty_table(tmp_path):
    everything = sliced()
    nothing = sliced(shard=(2, 2), elsewhere={"everything": everything})
    assert nothing.table.empty and list(nothing.table) == list(everything.table)
    results.save(nothing, tmp_path / "nothing.json")
    joined = shards.merged({"nothing": results.load(tmp_path / "nothing.json"), "everything": everything})
    pd.testing.assert_frame_equal(joined.table, everything.table, check_exact=True)
    assert len(shards.holes(shards.merged({"nothing": nothing}))) == 20


@pytest.mark.parametrize("shard", [(0, 3), (4, 3), (-1, 2), (1, 0), (1.0, 2), (1, 2, 3), "1/2", (True, 2)])
def test_no_shard(shard):
    with pytest.raises(ValueError, match=r"shard is .*; give \(i, n\) with whole numbers 1 <= i <= n, or None"):
        sliced(shard=shard)


def test_elsewhere_must_be_of_the_same_slice():
    other = sliced(networks.convolutional(4, seed=8))
    with pytest.raises(
        ValueError, match=r"b.json was measured with other directions_sha256, weights_sha256; .*remove it"
    ):
        sliced(elsewhere={"a.json": sliced(shard=(1, 2)), "b.json": other})
    with pytest.raises(ValueError, match=r"c.json is no result of loss_slice"):
        sliced(elsewhere={"c.json": None or results.Result("fisher_trace", pd.DataFrame(), {})})


# Their names


def array(task, low, high, step=None, count=None):
    values = {"ID": task, "MIN": low, "MAX": high, "STEP": step, "COUNT": count}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items() if value is not None}


def test_shards_by_name_and_from_slurm():
    assert shards.shard_of("3/8", {}) == (3, 8) and shards.shard_of("1/1", array(1, 0, 9)) == (1, 1)
    assert shards.shard_of("slurm", array(1, 1, 8, 1, 8)) == (1, 8)
    assert shards.shard_of("slurm", array(0, 0, 7)) == (1, 8)
    assert [shards.shard_of("slurm", array(task, 5, 14, 3, 4)) for task in (5, 8, 11, 14)] == [
        (number, 4) for number in (1, 2, 3, 4)
    ]
    assert shards.shard_of("slurm", array(11, 5, 13, 3, 3)) == (3, 3)  # MAX as it was asked for


@pytest.mark.parametrize("text", ["0/3", "4/3", "x", "2", "1/0", "-1/2", "1/2/3", "1.5/2", "", "1/9999999999", "SLURM"])
def test_other_names_are_refused(trained, text, tmp_path):
    said = failed("landscape", trained / "last.pt", "--shard", text, "--out", tmp_path, status=2)
    assert said == f"--shard: {text!r} is no shard; give I/N with whole numbers 1 <= I <= N, such as 3/8, or slurm."


@pytest.mark.parametrize(
    ("surroundings", "sentence"),
    [
        ({}, "slurm needs SLURM_ARRAY_TASK_ID, which is not set; run in a job of sbatch --array, or give I/N."),
        ({"SLURM_ARRAY_TASK_ID": "2"}, "slurm needs SLURM_ARRAY_TASK_MIN, which is not set;"),
        (array("two", 1, 8), "SLURM_ARRAY_TASK_ID is 'two', which is no whole number; give I/N."),
        (array(1, 1, 7, 1, 4), "the array of task 1, from 1 to 7, has gaps, so some shards would have no task;"),
        (array(2, 1, 7, 3, 3), "the array of task 2, from 1 to 7, has gaps"),
        (array(9, 1, 8), "the array of task 9, from 1 to 8, has gaps"),
    ],
)
def test_arrays_that_are_refused(trained, surroundings, sentence, monkeypatch, tmp_path):
    for name in array(0, 0, 0, 0, 0):
        monkeypatch.delenv(name, raising=False)
    for name, value in surroundings.items():
        monkeypatch.setenv(name, value)
    said = failed("landscape", trained / "last.pt", "--shard", "slurm", "--out", tmp_path, status=2)
    assert said.startswith(f"--shard: {sentence}")


# The commands


def test_merged_shards_are_the_files_of_one_process(trained, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for number in (1, 2, 3):
        done = plane(trained, parts, f"{number}/3", "--points", 3)
        assert f"When parts 1 to 3 are all done: snnprobe merge {parts}\n" in done.stdout
        assert "\n  3 of the grid's 9 points\n" in done.stdout
    names = [f"landscape_last.shard-{number}-of-3.json" for number in (1, 2, 3)]
    assert sorted(path.name for path in parts.iterdir()) == names
    expected = plane(trained, whole, None, "--points", 3, "--level", 0.5)
    done = run("merge", parts, "--level", 0.5)
    assert sorted(path.name for path in parts.iterdir()) == sorted([path.name for path in whole.iterdir()] + names)
    assert document(parts / "landscape_last.json") == document(whole / "landscape_last.json")
    for name in ("flatness.csv", "loss_contour.png", "loss_surface.pdf"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes(), name
    assert whole_file(parts / "loss_contour.png")
    first, *said = done.stdout.splitlines()
    assert first.startswith(f"{parts / 'landscape_last.json'}  (run, epoch 3, on 8 examples of the train split)")
    assert [line.replace(str(parts), str(whole)) for line in said] == expected.stdout.splitlines()[1:]
    environments = [results.load(parts / name).environment for name in names]
    found = results.load(parts / "landscape_last.json").environment
    assert found["seconds"] == pytest.approx(sum(one["seconds"] for one in environments))
    assert found["shards"] == 3 and found["processes"] == 1 and found["date"] == max(e["date"] for e in environments)


def test_merging_again_changes_nothing(trained, two_of_three):
    plane(trained, two_of_three, "2/3")
    first = run("merge", two_of_three).stdout
    before = state_of(two_of_three)
    assert run("merge", two_of_three).stdout == first
    assert state_of(two_of_three) == before
    (two_of_three / "landscape_last.json").write_text("{")
    run("merge", two_of_three, "--no-figure")
    again = state_of(two_of_three)
    assert {name: content for name, (content, _) in again.items()} == {n: c for n, (c, _) in before.items()}


def test_a_missing_shard_is_named_and_another_count_fills_its_points(trained, two_of_three, measured, tmp_path):
    done = points_of(two_of_three / "landscape_last.shard-1-of-3.json")
    done |= points_of(two_of_three / "landscape_last.shard-3-of-3.json")
    axis = np.linspace(-1, 1, 4).tolist()
    missing = [(a, b) for a in axis for b in axis if (a, b) not in done]
    before = state_of(two_of_three)
    first = ", ".join(f"({a:.6g}, {b:.6g})" for a, b in missing[:5])
    assert len(missing) == 5
    assert failed("merge", two_of_three) == (
        f"{two_of_three} lacks 5 of the 16 points of landscape_last, (alpha, beta) = {first}: give the snnprobe "
        "landscape command that made it once more with --shard 2/3, or with --shard 1/1 for all of them, and then merge."
    )
    assert state_of(two_of_three) == before and not measured
    plane(trained, two_of_three, "1/2")
    plane(trained, two_of_three, "2/2")
    assert sorted(measured) == missing
    assert points_of(two_of_three / "landscape_last.shard-1-of-2.json").isdisjoint(done)
    run("merge", two_of_three, "--no-figure")
    plane(trained, tmp_path / "whole", None, "--no-figure")
    assert document(two_of_three / "landscape_last.json") == document(tmp_path / "whole" / "landscape_last.json")
    measured.clear()
    plane(trained, two_of_three, "2/3")
    plane(trained, two_of_three, "1/2")
    assert not measured


def interrupt(monkeypatch, after):
    original, seen = landscape.measure, []

    def interrupted(*arguments):
        if len(seen) == after:
            signal.raise_signal(signal.SIGTERM)
        seen.append(1)
        return original(*arguments)

    monkeypatch.setattr(landscape, "measure", interrupted)


def test_an_interrupted_shard_keeps_its_points(trained, two_of_three, measured, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt(patch, 3)
        plane(trained, two_of_three, "2/3", status=143)
    partial = two_of_three / "landscape_last.shard-2-of-3.partial.json"
    kept = points_of(partial)
    assert len(kept) == 3 and failed("merge", two_of_three).startswith(f"{two_of_three} lacks 2 of the 16 points")
    aside = shutil.copytree(two_of_three, two_of_three.parent / "aside")
    measured.clear()
    plane(trained, two_of_three, "2/3")
    assert len(measured) == 2 and kept.isdisjoint(measured) and not partial.exists()
    measured.clear()
    plane(trained, aside, "1/1")
    assert len(measured) == 2 and kept.isdisjoint(measured)
    for folder in (two_of_three, aside):
        run("merge", folder, "--no-figure")
    assert document(two_of_three / "landscape_last.json") == document(aside / "landscape_last.json")


def test_a_killed_shard_keeps_its_points(trained, two_of_three):
    """kill -9 after four points, saved one by one."""
    code = """
import os, signal, sys
from snn_probe.cli import main
from snn_probe.probes import landscape
landscape.loss_slice.__kwdefaults__["save_every"] = 0.0
original, seen = landscape.measure, []
def killed(*arguments):
    if len(seen) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    seen.append(1)
    return original(*arguments)
landscape.measure = killed
main()
"""
    given = ["landscape", trained / "last.pt", "--plane", *FEW, "--shard", "2/3", "--out", two_of_three]
    done = subprocess.run([sys.executable, "-c", code, *map(str, given)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert failed("merge", two_of_three).startswith(f"{two_of_three} lacks 1 of the 16 points")
    run("merge", two_of_three, status=1)
    plane(trained, two_of_three, "3/4")
    plane(trained, two_of_three, "1/1")
    assert "over 16 points" in run("merge", two_of_three, "--no-figure").stdout


def test_tasks_of_a_slurm_array(trained, tmp_path, monkeypatch):
    for task in (4, 6, 8):
        for name, value in array(task, 4, 8, 2, 3).items():
            monkeypatch.setenv(name, value)
        plane(trained, tmp_path, "slurm", "--no-figure")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"landscape_last.shard-{i}-of-3.json" for i in (1, 2, 3)
    ]
    assert "over 16 points" in run("merge", tmp_path, "--no-figure").stdout


@pytest.mark.parametrize(
    "way",
    [
        ("last.pt", "--along", "pca"),
        ("epoch_0001.pt", "--to", "last.pt", "--no-figure"),
        ("last.pt", "--along", "eigenvectors", "--no-figure"),
        ("epoch_0001.pt", "last.pt", "--num-directions", 2, "--seed", 9),
    ],
)
def test_directions_of_every_kind_and_several_checkpoints(trained, way, measured, tmp_path):
    """9 and 10, too, in the order of numbers: the tables of all together are equal."""
    way = [trained / one if str(one).endswith(".pt") else one for one in way]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run("landscape", *way, *FEW, "--out", whole)
    measured.clear()
    for shard in ("1/2", "2/2", "2/2", "1/1"):
        run("landscape", *way, *FEW, "--shard", shard, "--out", parts)
    made = {path.name for path in whole.iterdir()}
    tables = [results.load(path).table for path in whole.glob("*.json")]
    assert len(measured) == sum(map(len, tables)) / 2  # objectives
    run("merge", parts, *(one for one in way if one == "--no-figure"))
    assert {path.name for path in parts.iterdir() if ".shard-" not in path.name} == made
    for name in made:
        if name.endswith(".json"):
            assert document(parts / name) == document(whole / name)
        else:
            assert (parts / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_slice_without_the_network_itself_and_json(trained, tmp_path):
    """--json prints the parts; --points 4 has no (0, 0), so no flatness."""
    done = plane(trained, tmp_path, "1/1", "--json", "--no-figure")
    assert len(json.loads(done.stdout)["table"]["loss"]) == 32 and "snnprobe merge" in done.stderr
    assert "flatness" not in run("merge", tmp_path).stdout


def test_mistakes_of_use_are_one_sentence(trained, tmp_path):
    for given in (("--level", 0.1), ("--radius", 0.5)):
        said = failed("landscape", trained / "last.pt", "--shard", "1/2", *given, "--out", tmp_path, status=2)
        assert said == "Flatness needs the whole grid; give --level and --radius to snnprobe merge."
    for folder in (tmp_path, tmp_path / "none"):
        assert failed("merge", folder) == (
            f"{folder} has no file NAME.shard-I-of-N.json; make them with snnprobe landscape --shard I/N --out {folder}."
        )


def test_shards_of_another_landscape_are_refused_at_the_start_and_at_the_end(trained, two_of_three, measured):
    given = ("landscape", trained / "last.pt", "--plane", "--num-examples", 8, "--points", 3, "--shard")
    said = failed(*given, "2/3", "--out", two_of_three)
    assert said == (
        f"{two_of_three}/landscape_last.shard-1-of-3.json was measured with other alphas, betas; give the same "
        "arguments, network and examples, or remove it."
    )
    assert not measured
    run(*given, "2/3", "--out", two_of_three / "other")
    (two_of_three / "other" / "landscape_last.shard-2-of-3.json").rename(
        two_of_three / "landscape_last.shard-2-of-3.json"
    )
    assert failed("merge", two_of_three) == (
        f"{two_of_three}/landscape_last.shard-2-of-3.json was measured with other alphas, betas than "
        f"{two_of_three}/landscape_last.shard-1-of-3.json; keep the shards of one landscape in a folder, and remove the "
        "others"
    )


def changed(path, change):
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))


def test_other_weights_or_examples_are_named(two_of_three):
    path = two_of_three / "landscape_last.shard-3-of-3.json"
    changed(path, lambda one: one["settings"].update(weights_sha256="0", examples_sha256="1"))
    assert f"{path} was measured with other weights, examples than " in failed("merge", two_of_three)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda one: one.update(probe="fisher_trace"), "holds 'fisher_trace' results"),
        (lambda one: one["settings"].pop("alphas"), "does not say its grid, objectives and number of examples"),
        (lambda one: one["settings"].update(betas=["x"]), "does not say its grid, objectives and number of examples"),
        (lambda one: one["settings"].update(objectives=[]), "does not say its grid, objectives and number of examples"),
        (
            lambda one: one["settings"].update(num_examples=0),
            "does not say its grid, objectives and number of examples",
        ),
        (lambda one: one["table"].pop("loss"), "has no column 'loss'"),
        (lambda one: one["table"]["alpha"].__setitem__(0, 0.123), "holds points that are not on its grid"),
        (
            lambda one: (one["table"].update(loss=["a"] * len(one["table"]["loss"])), one["dtypes"].update(loss="str")),
            "has no numbers in the column 'loss'",
        ),
    ],
)
def test_files_that_are_no_shards_are_named(two_of_three, change, sentence):
    path = two_of_three / "landscape_last.shard-3-of-3.json"
    changed(path, change)
    said = f"{path} {sentence}, so it is no shard of a landscape; remove it or make it again"
    assert failed("merge", two_of_three) == said


def test_a_broken_file_is_named_and_its_points_are_measured_again(trained, two_of_three, measured, caplog):
    path = two_of_three / "landscape_last.shard-3-of-3.json"
    path.write_text(path.read_text()[:500])
    assert failed("merge", two_of_three).startswith(f"{path} is not complete JSON (")
    done = plane(trained, two_of_three, "1/1")
    assert len(measured) == 16 - len(points_of(two_of_three / "landscape_last.shard-1-of-3.json"))
    assert f"{path} is not complete JSON (" in done.stderr and "; its points are measured again." in done.stderr
    path.unlink()
    run("merge", two_of_three, "--no-figure")


def test_equal_points_of_several_files_are_one_and_others_are_an_error(trained, two_of_three, tmp_path):
    plane(trained, two_of_three, "2/3")
    shutil.copytree(two_of_three, tmp_path / "apart")
    for path in two_of_three.glob("*.json"):
        path.rename(two_of_three / path.name.replace("-of-3", "-of-4"))
    for path in (tmp_path / "apart").glob("*.json"):
        shutil.copy(path, two_of_three)
    run("merge", two_of_three, "--no-figure")
    assert len(results.load(two_of_three / "landscape_last.json").table) == 32
    one = two_of_three / "landscape_last.shard-2-of-4.json"
    first = results.load(one).table.iloc[0]
    changed(one, lambda found: found["table"]["loss"].__setitem__(0, first["loss"] * (1 + 1e-5)))
    run("merge", two_of_three, "--no-figure")
    for column, value in (("loss", first["loss"] * 1.01), ("accuracy", first["accuracy"] + 0.5), ("finite", False)):
        before = one.read_text()
        changed(one, lambda found: found["table"][column].__setitem__(0, value))  # noqa: B023
        said = failed("merge", two_of_three)
        one.write_text(before)
        names = [f"{two_of_three}/landscape_last.shard-2-of-{count}.json" for count in (3, 4)]
        assert said.startswith(
            f"{names[0]} and {names[1]} disagree at (alpha, beta) = ({first['alpha']:.6g}, {first['beta']:.6g}), where "
        )
        assert said.endswith("; remove the one that is wrong")


def test_points_that_are_not_finite_agree_with_themselves(tmp_path):
    table = sliced().table.assign(finite=False)
    table.loc[0, "loss"], table.loc[1, "loss"] = np.nan, np.inf
    one = results.Result("loss_slice", table, sliced().settings)
    pd.testing.assert_frame_equal(shards.merged({"a": one, "b": one}).table, table)
    other = results.Result("loss_slice", table.assign(loss=table["loss"].replace(np.inf, -np.inf)), one.settings)
    with pytest.raises(ValueError, match=r"a and b disagree at .* sdt is inf and -inf; remove"):
        shards.merged({"a": one, "b": other})


def test_systems_that_differ_are_listed():
    one, two = sliced(shard=(1, 2)), sliced(shard=(2, 2))
    two.environment.update(device="cuda:0", seconds=2.0)
    one.environment.update(seconds=1.0)
    found = shards.merged({"a": one, "b": two}).environment
    assert (found["device"], found["seconds"], found["shards"]) == (["cpu", "cuda:0"], 3.0, 2)
    assert found["torch"] == one.environment["torch"]
