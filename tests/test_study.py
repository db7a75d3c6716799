"""Studies: what is made, what is kept, what the tables say, and that no interruption changes a number."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from snn_probe import study
from snn_probe.checkpoint import build_model, load
from snn_probe.data import batches
from snn_probe.data import load as load_data
from snn_probe.machine.folder_lock import locked
from snn_probe.objectives import SDT
from snn_probe.probes import fisher_trace, hessian_eigenvalues, landscape
from snn_probe.results import load as load_result
from snn_probe.studies import products
from snn_probe.studies.estimate import duration, estimate
from snn_probe.studies.plan import plan
from snn_probe.studies.products import Where
from snn_probe.studies.recipe import parse_recipe
from snn_probe.studies.workers import spread
from snn_probe.study import preview, run_study, tables
from snn_probe.tables.flatness import flatness, flatness_spread

SMALL = """
title = "A small study"
[train]
epochs = 3
num_steps = 2
batch_size = 16
width = 0.25
train_examples = 40
seeds = [0, 1]
[arms.tet]
method = "tet"
[arms.sdt]
[probes.fisher]
epochs = [1, "last"]
num_examples = 8
[probes.timesteps]
"""
RUNS = ["tet-seed0", "sdt-seed0", "tet-seed1", "sdt-seed1"]


def do(text, folder, *, jobs=1, **where):
    run_study(parse_recipe(text), "small", Where(folder, **where), jobs=jobs)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished study without figures and report."""
    folder = tmp_path_factory.mktemp("study") / "small"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "conclude", lambda tables, folder, **figures: None)
        do(SMALL, folder)
    return folder


@pytest.fixture
def copy(finished, tmp_path, monkeypatch):
    """A copy of it, and a list of what is trained ("tet-seed0") and measured from now on."""
    monkeypatch.setattr(study, "conclude", lambda tables, folder, **figures: None)
    made = []

    def trained(config, *, folder, **options):
        made.append(Path(folder).name)
        return train(config, folder=folder, **options)

    def measured(wanted, *arguments, **options):
        made.append(wanted.path)
        return measure(wanted, *arguments, **options)

    train, measure = products.train, products.measure
    monkeypatch.setattr(products, "train", trained)
    monkeypatch.setattr(products, "measure", measured)
    shutil.copytree(finished, tmp_path / "small")
    return tmp_path / "small", made


def contents(folder):
    """Every file of a study by its path, without what differs between two undisturbed runs: seconds and dates."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".pt":
            found[name] = load(path).card["sha256"]
        elif path.name == "metrics.csv":
            found[name] = pd.read_csv(path, dtype=str).drop(columns="seconds").to_csv()
        elif path.name == "study.json":
            document = json.loads(path.read_text())
            document["products"] = {key: value["made_from"] for key, value in document["products"].items()}
            del document["environment"]["date"], document["environment"]["processes"]
            found[name] = document
        else:
            found[name] = path.read_bytes()
    return found


def paths(probe, *epochs):
    return [f"results/{probe}/{run}-epoch{epoch:04d}.json" for run in RUNS for epoch in epochs]


def test_a_study_has_a_run_per_arm_and_seed_and_a_result_per_probe_and_checkpoint(finished):
    names = ("config.json", "metrics.csv", "checkpoints/epoch_0001.pt", "checkpoints/epoch_0003.pt")
    runs = [f"runs/{run}/{name}" for run in RUNS for name in names]
    kept = [".gitignore", "recipe.toml", "study.json"]
    assert sorted(contents(finished)) == sorted([*kept, *runs, *paths("fisher", 1, 3), *paths("timesteps", 3)])
    assert (finished / "recipe.toml").read_text() == SMALL


def test_the_record_says_what_was_run_and_how_long_it_took(finished):
    record = json.loads((finished / "study.json").read_text())
    assert (record["format"], record["name"], record["title"]) == ("snn_probe.study/1", "small", "A small study")
    assert (record["complete"], record["seeds"], record["groups"]) == (True, [0, 1], [""])
    assert list(record["arms"]) == ["tet", "sdt"] and record["arms"]["tet"]["method"] == "tet"
    assert record["environment"]["threads"] == 1 and record["environment"]["date"]
    assert len(record["products"]) == 4 + 8 + 4
    assert all(product["seconds"] > 0 and len(product["made_from"]) == 64 for product in record["products"].values())


def test_results_hold_no_date_and_no_seconds(finished):
    for path in finished.glob("results/*/*.json"):
        text = path.read_text()
        assert '"date"' not in text and '"seconds"' not in text and '"torch"' in text


def test_tables_have_the_probes_columns_with_arm_group_seed_and_epoch(finished):
    found = tables(finished)
    assert list(found) == ["metrics", "fisher", "timesteps"]
    for name, rows in (("metrics", 4 * 3), ("timesteps", 4 * 2)):
        table = found[name]
        assert {"run", "arm", "group", "method", "dataset", "model", "seed", "epoch", "num_steps"} <= set(table)
        assert len(table) == rows and set(table["group"]) == {""}
        assert table["arm"].drop_duplicates().tolist() == ["tet", "sdt"]  # as in the recipe
        assert table.groupby("arm")["seed"].unique().map(list).tolist() == [[0, 1], [0, 1]]
    assert set(found["fisher"]["epoch"]) == {1, 3}


def test_the_accuracy_of_all_timesteps_is_the_test_accuracy_of_training(finished):
    found = tables(finished)
    ends = found["timesteps"][found["timesteps"]["timestep"] == 2].set_index(["arm", "seed"])["accuracy"]
    last = found["metrics"][found["metrics"]["epoch"] == 3].set_index(["arm", "seed"])["test_accuracy"]
    assert ends.to_dict() == pytest.approx(last.to_dict(), abs=1e-12)


def test_a_result_is_the_probe_on_the_first_examples_that_were_trained_on(finished):
    checkpoint = load(finished / "runs/sdt-seed1/checkpoints/epoch_0001.pt")
    data = batches(load_data("digits", "train", num_examples=8), 64)
    expected = fisher_trace(build_model(checkpoint), data).table
    stored = load_result(finished / "results/fisher/sdt-seed1-epoch0001.json")
    pd.testing.assert_frame_equal(stored.table, expected)
    assert (stored.source["arm"], stored.source["epoch"], stored.settings["num_examples"]) == ("sdt", 1, 8)


def test_sizes_of_the_training_set_become_groups_and_bound_the_training_examples_that_are_probed(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "conclude", lambda tables, folder, **figures: None)
    text = SMALL.replace("= 40", "= [40, 30]").replace("[0, 1]", "[0]").replace("num_examples = 8", "num_examples = 35")
    do(text.replace("epochs = 3", "epochs = 1").replace('[1, "last"]', "1"), tmp_path / "s")
    table = tables(tmp_path / "s")["fisher"]
    assert table["group"].drop_duplicates().tolist() == ["40 examples", "30 examples"]
    assert sorted(path.name for path in (tmp_path / "s/runs").iterdir()) == [
        "sdt-30-seed0", "sdt-40-seed0", "tet-30-seed0", "tet-40-seed0",
    ]  # fmt: skip
    counts = {size: load_result(tmp_path / f"s/results/fisher/sdt-{size}-seed0-epoch0001.json").settings["num_examples"]
              for size in (30, 40)}  # fmt: skip
    assert counts == {30: 30, 40: 35}


def test_the_rows_of_metrics_say_the_timesteps_of_their_stage(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "conclude", lambda tables, folder, **figures: None)
    arms = "[arms.tit]\nstages = [{ epochs = 1, num_steps = 1 }, { epochs = 2 }]\n[probes.timesteps]\nepochs = [1, 3]\n"
    do(SMALL.partition("[arms.tet]")[0].replace("[0, 1]", "[0]") + arms, tmp_path)
    found = tables(tmp_path)
    assert found["metrics"]["num_steps"].tolist() == [1, 2, 2]
    assert found["timesteps"][["epoch", "num_steps", "timestep"]].to_numpy().tolist() == [
        [1, 1, 1],
        [3, 2, 1],
        [3, 2, 2],
    ]


CURVED = """
[probes.landscape]
num_examples = 16
points = 3
num_directions = 2
[probes.plane]
num_examples = 16
points = 3
[probes.eigenslice]
num_examples = 16
points = 3
range = 0.01
[probes.eigenvalues]
num_examples = 16
k = 1
"""


def test_slices_share_directions_examples_and_ranges_and_the_eigenslice_states_its_eigenvalue(copy):
    folder, _ = copy
    do(SMALL + CURVED, folder)
    found = tables(folder)
    for name in ("landscape", "plane"):
        stored = [load_result(path).settings for path in sorted(folder.glob(f"results/{name}/*.json"))]
        for key in ("directions", "seed", "examples_sha256", "alphas", "betas"):
            assert len({json.dumps(one[key]) for one in stored}) == 1
    assert found["landscape"]["directions"].unique().tolist() == [
        "random, filter-normalized, seed 0", "random, filter-normalized, seed 1",
    ]  # fmt: skip
    assert set(found["landscape"]["objective"]) == {"sdt", "tet"} and len(found["landscape"]) == 4 * 2 * 2 * 3
    assert len(found["plane"]) == 4 * 9
    checkpoint = load(folder / "runs/tet-seed0/checkpoints/epoch_0003.pt")
    data = batches(load_data("digits", "train", num_examples=16), 64)
    top = hessian_eigenvalues(build_model(checkpoint), data, SDT(), k=1).table["eigenvalue"][0]
    for name in ("eigenslice", "eigenvalues"):
        rows = found[name][(found[name]["arm"] == "tet") & (found[name]["seed"] == 0)]
        assert rows["eigenvalue"].tolist() == pytest.approx([top] * len(rows), rel=1e-6)
    centre = found["eigenslice"][found["eigenslice"]["alpha"] == 0].set_index(["arm", "seed"])["loss"]
    straight = found["landscape"].query("alpha == 0 and objective == 'sdt'").groupby(["arm", "seed"])["loss"].first()
    assert centre.to_dict() == pytest.approx(straight.to_dict())


def test_nothing_is_redone_and_nothing_changes(copy):
    folder, made = copy
    before = contents(folder)
    do(SMALL, folder)
    assert made == [] and contents(folder) == before


@pytest.mark.parametrize(
    ("old", "new", "trained", "measured"),
    [
        ('"A small study"', '"Another title"', [], []),
        ("num_examples = 8", "num_examples = 9", [], paths("fisher", 1, 3)),
        ("[probes.timesteps]", "[probes.timesteps]\n[probes.activity]", [], paths("activity", 3)),
        ("[probes.timesteps]", "[probes.timesteps]\nnum_steps = 2", [], paths("timesteps", 3)),
        ('[1, "last"]', "[1, 2, 3]", RUNS, paths("fisher", 2)),  # the checkpoint was not kept
        ("[0, 1]", "[1, 0]", [], []),
        ('method = "tet"', 'method = "tet"\nhyperparameters = { mse_weight = 0.2 }', ["tet-seed0", "tet-seed1"],
         [path for path in paths("fisher", 1, 3) + paths("timesteps", 3) if "tet" in path]),
        ("[0, 1]", "[0, 2]", ["tet-seed2", "sdt-seed2"],
         [path.replace("seed1", "seed2") for path in paths("fisher", 1, 3) + paths("timesteps", 3) if "seed1" in path]),
    ],
)  # fmt: skip
def test_a_changed_recipe_redoes_only_what_depends_on_the_change(copy, tmp_path, old, new, trained, measured):
    folder, made = copy
    assert old in SMALL
    text = SMALL.replace(old, new)
    before = contents(folder)
    do(text, folder)
    assert sorted(made) == sorted([*trained, *measured])
    after = contents(folder)
    if trained:
        do(text, tmp_path / "anew")
        assert after == contents(tmp_path / "anew")
    kept = {path for path in before if path.startswith("results/")} - set(measured)
    assert all(after[path] == before[path] for path in kept if path in after)


@pytest.mark.parametrize("kind", ["landscape", "plane", "eigenslice"])
def test_a_slice_that_was_interrupted_goes_on_with_its_points(copy, tmp_path, monkeypatch, kind):
    folder, _ = copy
    text = SMALL + "[probes." + kind + "]" + CURVED.partition("[probes." + kind + "]")[2].partition("[")[0]
    measured, until = [], []

    def counted(*arguments):
        measured.append(arguments)
        if len(measured) in until:
            raise KeyboardInterrupt
        return measure_point(*arguments)

    measure_point = landscape.measure
    monkeypatch.setattr(landscape, "measure", counted)
    monkeypatch.setattr(study, "estimate", lambda *arguments: {})  # which measures a few points, too
    do(text, tmp_path / "straight")
    points = len(measured)
    measured.clear()
    until += [2, points // 2]
    for _ in until:
        with pytest.raises(KeyboardInterrupt):
            do(text, folder)
        assert list(folder.glob("results/*/*.unfinished"))
    do(text, folder)
    assert len(measured) == points + len(until)  # each interrupted point once more, no other
    assert contents(folder / "results") == contents(tmp_path / "straight" / "results")


def test_points_of_another_slice_or_of_none_are_not_taken(copy, tmp_path):
    folder, _ = copy
    text = SMALL + CURVED
    do(text, folder)
    before = contents(folder)
    for path, other in zip(
        paths("plane", 3), [b"{", *[p.read_bytes() for p in sorted(folder.glob("results/plane/*"))]], strict=False
    ):
        (folder / path).unlink()
        (folder / path).with_name(Path(path).stem + ".0.unfinished").write_bytes(other)
    (folder / "results/plane/gone-epoch0003.0.unfinished").write_text("{}")
    beside = (folder / paths("landscape", 3)[0]).with_name(Path(paths("landscape", 3)[0]).stem + ".0.unfinished")
    beside.write_text("{}")  # of a result that is there
    do(text, folder)
    assert contents(folder) == before


def test_what_the_recipe_no_longer_has_is_removed(copy):
    folder, made = copy
    do(SMALL.partition("[probes.timesteps]")[0].replace("[0, 1]", "[0]"), folder)
    assert made == []
    assert sorted(path.name for path in (folder / "runs").iterdir()) == ["sdt-seed0", "tet-seed0"]
    assert [path.name for path in (folder / "results").iterdir()] == ["fisher"]


def test_damaged_and_lost_products_are_made_again(copy):
    folder, made = copy
    before = contents(folder)
    damaged, lost = folder / paths("fisher", 1)[0], folder / paths("timesteps", 3)[3]
    damaged.write_bytes(damaged.read_bytes()[:500])
    lost.unlink()
    (folder / "runs/sdt-seed1/checkpoints/epoch_0003.pt").unlink()
    (folder / "runs/sdt-seed0/metrics.csv").unlink()
    do(SMALL, folder)
    assert sorted(made) == sorted(["sdt-seed0", "sdt-seed1", paths("fisher", 1)[0], paths("timesteps", 3)[3]])
    assert contents(folder) == before


@pytest.mark.parametrize(("keep", "kept"), [("nothing", 0), ("probed", 2), ("all", 4)])
def test_the_checkpoints_that_are_kept(copy, tmp_path, keep, kept):
    _, made = copy
    do(SMALL.replace("[0, 1]", "[0]"), tmp_path / "s", keep=keep)
    for run in (tmp_path / "s/runs").iterdir():
        assert len(list(run.glob("checkpoints/*.pt"))) == kept
        assert (run / "resume.pt").exists() == (keep == "all")
    made.clear()
    do(SMALL.replace("[0, 1]", "[0]"), tmp_path / "s", keep=keep)
    assert made == []  # results need no checkpoints once they are there
    assert "*.pt" in (tmp_path / "s/.gitignore").read_text().splitlines()


def test_a_run_that_did_not_keep_a_checkpoint_that_is_needed_now_is_trained_again(copy, tmp_path):
    _, made = copy
    text = SMALL.replace("[0, 1]", "[0]")
    do(text, tmp_path / "s", keep="all")  # so that its resume.pt is past the epoch
    made.clear()
    do(text.replace('[1, "last"]', "[1, 2, 3]"), tmp_path / "s")
    assert sorted(made) == [path for path in sorted([*RUNS, *paths("fisher", 2)]) if "seed0" in path]


def test_two_processes_make_the_same_files_as_one(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "conclude", lambda tables, folder, **figures: None)
    do(SMALL, tmp_path / "small", jobs=2)
    assert contents(tmp_path / "small") == contents(finished)


KILLED = """
import os, random, signal, stat, sys, time
from pathlib import Path
from snn_probe import study
from snn_probe.machine import files
from snn_probe.studies.products import Where
from snn_probe.studies.recipe import parse_recipe

study.conclude = lambda tables, folder, **figures: None
recipe = parse_recipe(Path(sys.argv[1]).read_text())

def begin(folder, at_write=None):
    pid = os.fork()
    if pid:
        return pid
    if at_write:  # killed with a file half written, or whole but not yet named
        def dying(descriptor, calls=[0]):
            calls[0] += stat.S_ISREG(os.fstat(descriptor).st_mode)  # not folders
            if calls[0] == abs(at_write):
                if at_write < 0:
                    os.truncate(descriptor, 10)
                os.kill(os.getpid(), signal.SIGKILL)
        files.os.fsync = dying
    try:
        study.run_study(recipe, "small", Where(Path(folder)))
    except BaseException as error:
        print(repr(error), flush=True)
        os._exit(1)
    os._exit(0)

def end(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

began = time.monotonic()
print("undisturbed", end(begin("undisturbed")))
whole = time.monotonic() - began
choose, hits = random.Random(7), 0
for number in range(10):
    pid = begin("killed")
    time.sleep(choose.uniform(0.02, 0.5) * whole)
    os.kill(pid, signal.SIGKILL)
    hits += end(pid) == -signal.SIGKILL
print("hits", hits)
print("finished", end(begin("killed")))
for at_write in (1, -2, 3, -4, 5, -6, 8):
    print("write", end(begin("half", at_write)))
print("finished", end(begin("half")))
"""


def test_killing_a_study_at_any_moment_changes_no_file(tmp_path):
    text = SMALL.replace("[0, 1]", "[0]")
    (tmp_path / "small.toml").write_text(text)
    done = subprocess.run([sys.executable, "-c", KILLED, "small.toml"], cwd=tmp_path, capture_output=True, text=True)
    said = [line.split() for line in done.stdout.splitlines()]
    assert [line for line in said if line[0] not in ("hits", "write")] == [
        ["undisturbed", "0"], ["finished", "0"], ["finished", "0"],
    ], done.stdout + done.stderr  # fmt: skip
    assert int(dict(line for line in said if line[0] == "hits")["hits"]) >= 5
    assert [line for line in said if line[0] == "write"].count(["write", "-9"]) == 7
    expected = contents(tmp_path / "undisturbed")
    for folder in ("killed", "half"):
        assert contents(tmp_path / folder) == expected
        record = json.loads((tmp_path / folder / "study.json").read_text())
        assert record["complete"]


def test_a_folder_is_for_one_process_at_a_time(finished, tmp_path):
    with locked(tmp_path / "s"):
        with pytest.raises(
            RuntimeError,
            match=rf"s is being worked on by process {os.getpid()} on \S+ since \S+; wait until it is done, stop it,",
        ):
            do(SMALL, tmp_path / "s")
        assert os.listdir(tmp_path / "s") == [".lock"]
    with locked(tmp_path / "s"):  # free again
        pass


def test_the_lock_of_a_killed_process_is_waited_for_until_what_it_started_has_ended(tmp_path):
    code = (
        "import subprocess, sys, time, os\nfrom snn_probe.machine.folder_lock import locked\n"
        "with locked('s') as lock:\n    subprocess.Popen(['sleep', '1'], pass_fds=[lock])\n    os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path).returncode == -9
    assert (tmp_path / "s/.lock").read_text().startswith("process ")
    with locked(tmp_path / "s"):
        assert (tmp_path / "s/.lock").read_text().startswith(f"process {os.getpid()} ")


def test_a_folder_that_holds_something_else_is_refused(finished, tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match=r"holds files but no study .study.json.; choose another folder with --out."):
        do(SMALL, tmp_path)
    with pytest.raises(ValueError, match=r"thesis.tex is a file; choose another folder with --out."):
        do(SMALL, tmp_path / "thesis.tex")
    shutil.copytree(finished, tmp_path / "s")
    with pytest.raises(ValueError, match=r"s holds the study 'small', not 'other'; choose another folder with --out."):
        run_study(parse_recipe(SMALL), "other", Where(tmp_path / "s"))
    with pytest.raises(ValueError, match=r"jobs is 0; give a whole number of processes of at least 1."):
        run_study(parse_recipe(SMALL), "small", Where(tmp_path / "s"), jobs=0)


def test_tables_of_an_unfinished_study_or_of_none_are_refused(copy, tmp_path):
    folder, _ = copy
    (folder / paths("fisher", 3)[2]).unlink()
    with pytest.raises(
        ValueError, match=r"epoch0003.json is missing or stale; finish the study with snnprobe reproduce."
    ):
        tables(folder)
    with pytest.raises(ValueError, match=r"holds no study .recipe.toml: No such file or directory.; give a folder of"):
        tables(tmp_path)


def test_a_preview_writes_nothing_and_counts_what_is_missing(copy):
    folder, made = copy
    for path in paths("fisher", 1)[:2]:
        (folder / path).unlink()
    before = contents(folder)
    said = preview(parse_recipe(SMALL), Where(folder))
    assert said[:2] == ["A small study", f"4 runs (2 arms x 2 seeds), 12 results, in {folder}"]
    assert said[3].split()[:3] == ["fisher", "2", "results,"] and said[3].endswith("(measured)") and len(said) == 8
    assert said[4] == "    2 results: 1 forward, 1.5 backward through 8 examples"
    assert said[6] == "  memory  not known of fisher, measured before"
    assert contents(folder) == before and made == []
    assert preview(parse_recipe(SMALL), Where(folder.parent / "new"), jobs=2)[-1].startswith("  disk    ")
    assert not (folder.parent / "new").exists()


def test_the_estimate_is_the_mean_of_what_was_measured(copy, tmp_path):
    done, *left = products.outstanding(tmp_path / "new", plan(parse_recipe(SMALL)))
    fisher = [
        replace(work, train=False, missing=tuple(one for one in work.missing if one.probe.name == "fisher"))
        for work in left
    ]
    known = {done.missing[0].path: 2.0, done.missing[1].path: 4.0}
    costs = estimate(fisher, known, Where(copy[0]))["fisher"]
    assert [(cost.run, cost.seconds, cost.memory, cost.measured) for cost in costs] == [
        (run, 3.0, None, True) for run in RUNS[1:] for _ in range(2)
    ]
    assert [duration(seconds) for seconds in (3.2, 89, 600, 9000)] == ["3 s", "89 s", "10 min", "2.5 h"]


def test_data_that_are_missing_are_named_before_anything_is_trained(tmp_path):
    text = SMALL.replace("[train]", '[data]\ndataset = "image-folder"\n[train]')
    with pytest.raises(ValueError, match=r"train"):
        do(text, tmp_path / "s", data_root=tmp_path)
    assert not (tmp_path / "s").exists()


def test_too_few_examples_are_said_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "conclude", lambda tables, folder, **figures: None)
    with pytest.raises(ValueError, match=r"num_examples is 5000, but the test split of digits has 360 examples"):
        do(SMALL + "num_examples = 5000", tmp_path / "s")
    assert not (tmp_path / "s/runs").exists()


def test_work_is_spread_over_processes():
    assert sorted(spread(range, [2, 3, 1, 0], jobs=2)) == [0, 0, 0, 1, 1, 2]
    with pytest.raises(ValueError, match=r"invalid literal for int") as found:
        list(spread(int, ["x", "1"], jobs=1))
    assert "in _perform_all" in found.value.__notes__[0]
    with pytest.raises(
        RuntimeError, match=r"A worker process ended without a word; give fewer --jobs if memory is short."
    ):
        list(spread(os._exit, [3], jobs=1))


def test_the_spread_over_directions_can_be_taken(copy):
    folder, _ = copy
    do(SMALL + CURVED.partition("[probes.plane]")[0], folder)
    spread_of = flatness_spread(flatness(tables(folder)["landscape"], level=0.1, radius=0.5))
    assert set(spread_of["n"]) == {2} and len(spread_of) == 4 * 2
