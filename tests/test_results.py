"""Results come back from their JSON file exactly, and every other file is refused in one sentence."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

import snn_probe
from snn_probe import results
from snn_probe.results import Result, combine, environment, load, save

NAN, INF = math.nan, math.inf
AWKWARD_FLOATS = [0.1, 1.0, -0.0, 5e-324, 1.7976931348623157e308, 2.0**53, 1e16, 1 / 3, -1e-300]


def back(table, tmp_path, **parts):
    """The result, after a round trip, of a probe with this table."""
    save(Result("probe", table, parts.pop("settings", {}), **parts), tmp_path / "result.json")
    return load(tmp_path / "result.json")


AWKWARD_COLUMNS = {
    "floats": AWKWARD_FLOATS,
    "whole floats": [1.0, 2.0],
    "some missing": [1.5, NAN, INF, -INF],
    "all missing": [NAN, NAN],
    "all infinite": [INF, -INF],
    "integers": [0, -(2**63), 2**63 - 1],
    "integers missing": pd.array([2**60 + 1, None], dtype="Int64"),
    "nullable integers": pd.array([1, 2], dtype="Int64"),
    "booleans": [True, False],
    "booleans missing": pd.array([True, None], dtype="boolean"),
    "strings": ["all", "", "conv1.weight", '"', "\n", "\u00fc\u4e2d\U0001f600", "NaN", "null", "Infinity", "1"],
    "strings missing": pd.Series(["a", None, "Infinity"], dtype="str"),
    "strings all missing": pd.Series([None, None], dtype="str"),
    "only infinite words": ["Infinity", "-Infinity"],
    "no floats": pd.Series([], dtype="float64"),
    "no integers": pd.Series([], dtype="int64"),
    "no strings": pd.Series([], dtype="str"),
    "no booleans": pd.Series([], dtype="bool"),
}


@pytest.mark.parametrize("name", AWKWARD_COLUMNS)
def test_every_value_and_dtype_comes_back(tmp_path, name):
    table = pd.DataFrame({name: AWKWARD_COLUMNS[name]})
    assert_frame_equal(back(table, tmp_path).table, table, check_exact=True)


def test_random_bit_patterns_come_back(tmp_path):
    bits = np.random.default_rng(0).integers(0, 2**64, size=2000, dtype=np.uint64)
    table = pd.DataFrame({"floats": bits.view(np.float64), "integers": bits.view(np.int64)})
    loaded = back(table, tmp_path).table
    assert_frame_equal(loaded, table, check_exact=True)
    assert np.signbit(back(pd.DataFrame({"x": [-0.0]}), tmp_path).table["x"][0])


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (np.array([1, 2], dtype=np.int32), [1, 2]),
        (np.array([1.5, 0.1], dtype=np.float32), [1.5, float(np.float32(0.1))]),
        (pd.Series([1, 2.5, None], dtype=object), [1.0, 2.5, NAN]),
        (pd.Series([None, None], dtype=object), [NAN, NAN]),
        (pd.Series(["a", None], dtype=object), pd.Series(["a", None], dtype="str")),
        (pd.Series(["a", "b", "a"], dtype="category"), ["a", "b", "a"]),
        (pd.Series([True, None], dtype=object), pd.array([True, None], dtype="boolean")),
        (pd.Series([2**60 + 1, None], dtype=object), pd.array([2**60 + 1, None], dtype="Int64")),
        (pd.array([1.5, None], dtype="Float64"), [1.5, NAN]),
    ],
)
def test_other_dtypes_become_the_plain_one(tmp_path, column, expected):
    assert_frame_equal(back(pd.DataFrame({"x": column}), tmp_path).table, pd.DataFrame({"x": expected}))


def test_the_file_is_the_one_described(tmp_path):
    table = pd.DataFrame({"layer": ["conv1", "all"], "trace": [NAN, INF]}, index=[7, 9])
    save(Result("fisher_trace", table, {"group_size": 1}, {"epoch": 3}, {"seconds": 1.5}), tmp_path / "r.json")
    document = json.loads((tmp_path / "r.json").read_text(), parse_constant=pytest.fail)
    assert document == {
        "format": "snn_probe.result/1",
        "probe": "fisher_trace",
        "settings": {"group_size": 1},
        "source": {"epoch": 3},
        "environment": {"seconds": 1.5},
        "dtypes": {"layer": "str", "trace": "float64"},
        "table": {"layer": ["conv1", "all"], "trace": [None, "Infinity"]},
    }
    loaded = load(str(tmp_path / "r.json"))
    assert (loaded.probe, loaded.settings, loaded.source, loaded.environment) == (
        "fisher_trace",
        {"group_size": 1},
        {"epoch": 3},
        {"seconds": 1.5},
    )
    assert_frame_equal(loaded.table, table.reset_index(drop=True))


def test_a_table_without_columns(tmp_path):
    assert back(pd.DataFrame(), tmp_path).table.shape == (0, 0)


def test_settings_become_plain(tmp_path):
    settings = {
        "a": np.float64(0.1),
        "b": np.int64(3),
        "c": np.bool_(True),
        "d": (1, 2.0),
        "e": np.arange(3),
        "f": Path("x") / "y",
        "g": NAN,
        "h": {"i": [np.float32(0.5), None, INF]},
        "j": pd.NA,
        "k": np.float64(NAN),
        "l": np.str_("text"),
    }
    loaded = back(pd.DataFrame({"x": [1]}), tmp_path, settings=settings, source={"v": NAN}, environment={"v": NAN})
    assert loaded.settings == {
        "a": 0.1,
        "b": 3,
        "c": True,
        "d": [1, 2.0],
        "e": [0, 1, 2],
        "f": os.path.join("x", "y"),
        "g": None,
        "h": {"i": [0.5, None, "Infinity"]},
        "j": None,
        "k": None,
        "l": "text",
    }
    assert loaded.settings["c"] is True
    assert loaded.source == {"v": None}
    assert loaded.environment == {"v": None}
    assert isinstance(settings["a"], np.float64)  # the caller's own dict is as it was


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({"settings": {"f": {"g": object()}}}, r"save: settings\['f'\]\['g'\] is a object; give numbers, strings"),
        ({"source": {"m": {1: 2}}}, r"save: source\['m'\] is a dict whose keys are not all strings; give"),
        ({"table": pd.DataFrame({"x": [2**64 - 1]})}, "column 'x' holds integers beyond 64 bits; give floats, 64-bit"),
        ({"table": pd.DataFrame({"x": [1j]})}, "column 'x' holds complex; give floats, 64-bit"),
        ({"table": pd.DataFrame({"x": [[1], 2]})}, "column 'x' holds mixed.*; give floats"),
        ({"table": pd.DataFrame({"x": [1, "a"]})}, "column 'x' holds mixed-integer; give floats"),
        ({"table": pd.DataFrame([[1]])}, r"the table's columns are \[0\]; give each its own name, a str"),
        ({"table": pd.DataFrame([[1, 2]], columns=["a", "a"])}, r"columns are \['a', 'a'\]; give each its own name"),
    ],
)
def test_what_json_cannot_hold_is_refused(tmp_path, parts, sentence):
    parts = {"table": pd.DataFrame(), "settings": {}} | parts
    with pytest.raises(ValueError, match=sentence):
        save(Result("probe", **parts), tmp_path / "result.json")
    assert os.listdir(tmp_path) == []


GOOD = {"format": "snn_probe.result/1", "probe": "p", "settings": {}, "source": {}, "environment": {}, "table": {}}


def refused(tmp_path, text, sentence):
    path = tmp_path / "result.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match="^" + re.escape(f"{path}") + sentence) as caught:
        load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", " is not complete JSON .*; make the result again$"),
        (json.dumps(GOOD)[:-5], " is not complete JSON"),
        ('{"format": NaN}', r" is not complete JSON \(NaN is not JSON\)"),
        (b"PK\x03\x04\xff\xfe", " is not complete JSON"),
        ("[" * 100_000, " is not complete JSON"),
        ("[]", r" holds a list of 0; give a file of one result, as probes save them$"),
        ('[{"format": "snn_probe.result/1"}, {}]', r" holds a list of 2; give a file of one result, as probes save"),
        ("{}", r" is not a snn_probe result \(its format is None\); give one that a probe saved$"),
        ('{"format": 1}', r" is not a snn_probe result \(its format is 1\)"),
        ('{"format": "snn_probe.checkpoint/1"}', r" is not a snn_probe result \(its format is 'snn_probe.checkpoint/1"),
        ('{"format": "snn_probe.result/x"}', " is not a snn_probe result"),
    ],
)
def test_a_file_that_is_no_result(tmp_path, text, sentence):
    refused(tmp_path, text, sentence)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"format": "snn_probe.result/2"}, " has format snn_probe.result/2, .* snn_probe.result/1; upgrade snn_probe$"),
        ({"probe": 3}, ": 'probe' is a int where a str belongs; make the result again$"),
        ({"settings": []}, ": 'settings' is a list where a dict belongs"),
        ({"source": None}, ": 'source' is a NoneType where a dict belongs"),
        ({"table": [1]}, ": 'table' is a list where a dict belongs"),
        ({"dtypes": "x"}, ": 'dtypes' is a str where a dict belongs"),
        ({"table": {"a": [1], "b": [1, 2]}}, r": the table's columns have lengths \{'a': 1, 'b': 2\}; make the"),
        ({"table": {"a": 1}}, r": the table's columns have lengths \{'a': 'no list'\}"),
        ({"table": {"a": [1, "x"]}}, ": column 'a' holds 1, which is not str; make the result again$"),
        ({"table": {"a": [[1]]}}, ": column 'a' holds .*; make the result again$"),
        ({"table": {"a": [True, 1]}}, ": column 'a' holds True, which is not float64"),
        ({"table": {"a": [2**64]}}, ": column 'a' holds 18446744073709551616, which is not int64"),
        ({"table": {"a": ["x"]}, "dtypes": {"a": "float64"}}, ": column 'a' holds 'x', which is not float64"),
        ({"table": {"a": [1.0]}, "dtypes": {"a": "int64"}}, ": column 'a' holds 1.0, which is not int64"),
        ({"table": {"a": [None]}, "dtypes": {"a": "int64"}}, ": column 'a' holds None, which is not int64"),
        ({"table": {"a": [1]}, "dtypes": {"a": "datetime64"}}, ": column 'a' has the unknown dtype 'datetime64'"),
        ({"table": {"a": [1]}, "dtypes": {"a": ["int64"]}}, r": column 'a' has the unknown dtype \['int64'\]"),
    ],
)
def test_a_damaged_result(tmp_path, change, sentence):
    refused(tmp_path, json.dumps(GOOD | change), sentence)


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(ValueError, match=r"none\.json does not exist; give the path of a saved snn_probe result$"):
        load(tmp_path / "none.json")
    with pytest.raises(ValueError, match=r"cannot be read \(.*\); give the path of a saved snn_probe result$"):
        load(tmp_path)


def test_dtypes_follow_from_the_values_where_a_file_does_not_name_them(tmp_path):
    columns = {
        "a": ([1, 2], "int64"),
        "b": ([1, None], "float64"),
        "c": ([1, 2.5], "float64"),
        "d": ([None, None], "float64"),
        "e": (["Infinity", None], "float64"),
        "f": (["Infinity", "x"], "str"),
        "g": ([True, False], "bool"),
        "h": ([True, None], "boolean"),
        "i": (["x", None], "str"),
        "j": ([1, "-Infinity"], "float64"),
    }
    path = tmp_path / "result.json"
    path.write_text(json.dumps(GOOD | {"table": {name: values for name, (values, _) in columns.items()}}))
    table = load(path).table
    assert {name: str(dtype) for name, dtype in table.dtypes.items()} == {n: d for n, (_, d) in columns.items()}
    assert table["e"].tolist()[0] == INF
    assert table["f"].tolist() == ["Infinity", "x"]


def source(method="trt", seed=0, epoch=5, kind="epoch"):
    config = {"method": method, "dataset": "digits", "model": "tiny", "seed": seed, "num_steps": 4, "epochs": 20}
    return {"run": f"digits-tiny-{method}-seed{seed}", "epoch": epoch, "kind": kind, "config": config}


def test_combine_puts_who_before_what():
    table = pd.DataFrame({"layer": ["all", "all"], "timestep": [1, 2], "trace": [0.5, 0.25]}, index=[3, 4])
    first, second = Result("fisher_trace", table, {}, source()), Result("fisher_trace", table, {}, source("sdt", 1, 9))
    combined = combine(iter([first, second]))
    assert list(combined.columns) == [*results.IDENTIFYING, "layer", "timestep", "trace"]
    assert combined["run"].tolist() == ["digits-tiny-trt-seed0"] * 2 + ["digits-tiny-sdt-seed1"] * 2
    assert combined["method"].tolist() == ["trt", "trt", "sdt", "sdt"]
    assert combined["dataset"].unique().tolist() == ["digits"]
    assert combined["model"].unique().tolist() == ["tiny"]
    assert combined["seed"].tolist() == [0, 0, 1, 1]
    assert combined["epoch"].tolist() == [5, 5, 9, 9]
    assert combined["num_steps"].tolist() == [4] * 4
    assert combined["checkpoint"].tolist() == ["epoch"] * 4
    assert combined["trace"].tolist() == [0.5, 0.25, 0.5, 0.25]
    assert combined.index.tolist() == [0, 1, 2, 3]
    assert [str(combined[name].dtype) for name in ("seed", "epoch", "num_steps", "timestep")] == ["int64"] * 4
    assert list(first.table.columns) == ["layer", "timestep", "trace"]


@pytest.mark.parametrize("incomplete", [{}, {"config": None}, {"config": {"seed": "x", "method": 3}}, {"epoch": None}])
def test_what_a_source_does_not_say_is_missing(incomplete):
    table = pd.DataFrame({"x": [1.0]})
    combined = combine([Result("p", table, {}, incomplete), Result("p", table, {}, source())])
    assert combined.iloc[0][list(results.IDENTIFYING)].isna().all()
    assert combined.iloc[1][list(results.IDENTIFYING)].notna().all()
    assert str(combined["seed"].dtype) == "Int64"
    assert combine([Result("p", table, {}, incomplete)])[list(results.IDENTIFYING)].isna().all(axis=None)


def test_combine_keeps_what_the_table_itself_says():
    metrics = pd.DataFrame({"epoch": [1, 2], "train_loss": [2.0, 1.0]})
    combined = combine([Result("metrics", metrics, {}, source(epoch=20))])
    assert combined["epoch"].tolist() == [1, 2]
    assert list(combined.columns) == [*results.IDENTIFYING, "train_loss"]


def test_a_combined_table_can_be_saved_and_combined_again(tmp_path):
    results_ = [Result("p", pd.DataFrame({"x": [1.5, NAN]}), {}, card) for card in (source(), {}, source(epoch=None))]
    combined = combine(results_)
    loaded = back(combined, tmp_path)
    assert_frame_equal(loaded.table, combined)
    assert_frame_equal(combine([loaded]), combined)


def test_combine_tolerates_empty_and_differing_tables():
    tables = [pd.DataFrame({"x": [1.0]}), pd.DataFrame({"x": []}), pd.DataFrame({"x": [2.0], "y": ["a"]})]
    combined = combine([Result("p", table, {}, source()) for table in tables])
    assert combined["x"].tolist() == [1.0, 2.0]
    assert combined["y"].isna().tolist() == [True, False]
    assert combined["x"].dtype == np.float64


def test_combine_refuses_different_probes_and_nothing():
    table = pd.DataFrame({"x": [1]})
    with pytest.raises(ValueError, match="combine: got results of a and b; give one or more results of a single probe"):
        combine([Result("b", table, {}), Result("a", table, {})])
    with pytest.raises(ValueError, match="combine: got no result; give one or more results of a single probe"):
        combine([])


def test_environment_is_json_and_names_what_matters(tmp_path):
    found = environment(device="cpu", threads=2, seconds=1.5)
    assert json.loads(json.dumps(found)) == found
    assert found["snn_probe"] == snn_probe.__version__
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["numpy"] == np.__version__
    assert (found["device"], found["threads"], found["seconds"]) == ("cpu", 2, 1.5)
    assert {"torch", "spikingjelly", "platform", "machine", "cpu_count", "git_commit", "git_modified"} <= found.keys()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", found["date"])
    assert found["git_commit"] is None or re.fullmatch("[0-9a-f]{40,64}", found["git_commit"])


def test_absent_packages_are_null():
    assert results._version("no-such-package-anywhere") is None


def in_checkout(folder, *arguments):
    identity = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *identity, "-C", folder, *arguments], check=True, capture_output=True, text=True)


def test_git_commit_of_the_package_and_of_nothing_else(tmp_path, monkeypatch):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(results, "__file__", str(package / "results.py"))
    assert results._git_state.__wrapped__() == (None, None)  # no checkout
    in_checkout(tmp_path, "init")
    in_checkout(tmp_path, "commit", "--allow-empty", "-m", "other things")
    assert results._git_state.__wrapped__() == (
        None,
        None,
    )  # a checkout of other things, as around a virtual environment
    in_checkout(tmp_path, "add", "package")
    in_checkout(tmp_path, "commit", "-m", "package")
    commit = in_checkout(tmp_path, "rev-parse", "HEAD").stdout.strip()
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert results._git_state.__wrapped__() == (commit, False)
    (package / "__init__.py").write_text("changed = True")
    assert results._git_state.__wrapped__() == (commit, True)
    monkeypatch.setenv("PATH", "")
    assert results._git_state.__wrapped__() == (None, None)  # no git


def test_results_need_no_torch_and_the_package_needs_no_pandas():
    code = (
        "import sys, snn_probe; assert 'pandas' not in sys.modules and 'numpy' not in sys.modules\n"
        "import snn_probe.results; snn_probe.results.environment()\n"
        "assert not {'torch', 'spikingjelly', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_result_is_frozen():
    result = Result("p", pd.DataFrame(), {})
    with pytest.raises(AttributeError):
        result.probe = "q"
    assert result.source == {} and result.environment == {}
    assert result == result and result != Result("p", pd.DataFrame(), {})


def test_trt_without_decay_is_named_as_the_control_it_is():
    def method(decay):
        source = {"config": {"method": "trt", "hyperparameters": {"decay": decay}}}
        return combine([Result("p", pd.DataFrame({"x": [1.0]}), {}, source)])["method"][0]

    assert (method(0.0), method(0), method(0.25)) == ("trt-l2", "trt-l2", "trt")
