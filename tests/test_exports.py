"""Exported files hold the numbers of the result: read back with h5py, an XML parser and pandas."""

import base64
import io
import itertools
import math
import struct
import subprocess
import sys
import xml.etree.ElementTree as ET

import h5py
import numpy as np
import pandas as pd
import pytest
from commands import failed, run

from snn_probe.results import Result, combine, save
from snn_probe.tables import slices
from snn_probe.tables.exports import export, hdf5, vts

ALPHAS, BETAS = (-1.0, 0.0, 1 / 3, 1.0), (-0.5, 0.25, 0.5)
SOURCE = {"run": "mine", "epoch": 7, "config": {"method": "tet", "seed": 3, "dataset": "digits", "model": "tiny"}}


def loss(objective, alpha, beta):
    return {"sdt": 1.0, "tet": 2.0}[objective] * (1.1 + math.sin(3 * alpha) + alpha * beta**2)


def accuracy(alpha, beta):
    return 0.5 + 0.3 * alpha - 0.1 * beta


def landscape(alphas=ALPHAS, betas=BETAS, objectives=("sdt", "tet"), **settings):
    """A slice as ``loss_slice`` returns it, with a point (0, last beta) whose losses are not finite."""
    rows = [(o, a, b, loss(o, a, b), accuracy(a, b), True) for o, a, b in itertools.product(objectives, alphas, betas)]
    table = pd.DataFrame(rows, columns=["objective", "alpha", "beta", "loss", "accuracy", "finite"])
    lost = (table["alpha"] == 0) & (table["beta"] == betas[-1])
    table.loc[lost, ["loss", "accuracy"]] = math.nan
    table.loc[lost, "finite"] = False
    table.loc[lost & (table["objective"] == "tet"), "loss"] = math.inf
    return Result("loss_slice", table, {"directions": "random, seed 0", **settings}, SOURCE)


def datasets(content):
    with h5py.File(io.BytesIO(content)) as file:
        return {name: file[name][:] for name in file}, dict(file.attrs)


# --- HDF5 ---


def test_a_plane_in_hdf5_has_every_number_y_first():
    found, facts = datasets(hdf5(landscape(split="train", num_examples=12)))
    assert list(found) == ["train_acc", "train_loss", "xcoordinates", "ycoordinates"]
    assert found["xcoordinates"].tolist() == list(ALPHAS) and found["ycoordinates"].tolist() == list(BETAS)
    assert found["train_loss"].shape == found["train_acc"].shape == (3, 4)
    for (i, a), (j, b) in itertools.product(enumerate(ALPHAS), enumerate(BETAS)):
        if (a, b) == (0.0, 0.5):
            assert math.isnan(found["train_loss"][j, i]) and math.isnan(found["train_acc"][j, i])
        else:
            assert found["train_loss"][j, i] == loss("sdt", a, b)
            assert found["train_acc"][j, i] == 100 * accuracy(a, b)
    known = {"objective": "sdt", "run": "mine", "epoch": 7, "method": "tet", "split": "train", "num_examples": 12}
    assert known.items() <= facts.items() and facts["directions"] == "random, seed 0"


def test_a_plane_in_hdf5_is_drawn_as_the_program_draws_it():
    """It calls contour(*meshgrid(x, y), values) and writes points by raveling all three."""
    found, _ = datasets(hdf5(landscape()))
    x, y = np.meshgrid(found["xcoordinates"], found["ycoordinates"])
    assert x.shape == found["train_loss"].shape
    for a, b, value in zip(x.ravel(), y.ravel(), found["train_loss"].ravel(), strict=True):
        assert math.isnan(value) if (a, b) == (0.0, 0.5) else value == loss("sdt", a, b)


def test_a_line_in_hdf5_has_one_axis_and_names_its_split():
    found, facts = datasets(hdf5(landscape(betas=(0.0,), split="test"), "tet"))
    assert list(found) == ["test_acc", "test_loss", "xcoordinates"]
    expected = [loss("tet", a, 0.0) if a else math.inf for a in ALPHAS]
    assert found["test_loss"].tolist() == expected and found["test_acc"].shape == (4,)
    assert facts["objective"] == "tet"


def test_the_plane_of_a_run_in_hdf5_has_its_trajectory():
    way = {"alpha": [0.3, 0.1, 0.0], "beta": [0.2, -0.1, 0.0], "epoch": [1, 5, 20]}
    found, _ = datasets(hdf5(landscape(trajectory=way, explained=[0.75, 0.125])))
    assert found["proj_xcoord"].tolist() == way["alpha"] and found["proj_ycoord"].tolist() == way["beta"]
    assert found["explained_variance_ratio_"].tolist() == [0.75, 0.125]


def test_a_result_that_says_nothing_of_itself_can_be_exported():
    table = landscape().table.drop(columns=["accuracy", "finite"])
    found, facts = datasets(hdf5(Result("loss_slice", table, {})))
    assert np.isnan(found["train_acc"]).all() and "run" not in facts


# --- ParaView ---


def arrays(content):
    """The extent and the arrays of a structured grid, decoded by the rules of VTK's XML."""
    root = ET.fromstring(content)
    assert root.attrib == {"type": "StructuredGrid", "version": "1.0", "byte_order": "LittleEndian",
                           "header_type": "UInt64"}  # fmt: skip
    grid, piece = root.find("StructuredGrid"), root.find("StructuredGrid/Piece")
    assert grid.get("WholeExtent") == piece.get("Extent")
    found = {}
    for element in (*piece.find("PointData"), *piece.find("Points")):
        content = base64.b64decode(element.text, validate=True)
        assert element.get("format") == "binary" and struct.unpack("<Q", content[:8]) == (len(content) - 8,)
        dtype = {"Float64": "<f8", "UInt8": "u1"}[element.get("type")]
        found[element.get("Name")] = np.frombuffer(content[8:], dtype)
    return [int(part) for part in piece.get("Extent").split()], piece.find("PointData").get("Scalars"), found


def test_a_plane_for_paraview_has_every_number_alpha_fastest():
    extent, shown, found = arrays(vts(landscape()))
    assert extent == [0, 3, 0, 2, 0, 0] and shown == "loss_sdt"
    assert list(found) == ["loss_sdt", "loss_tet", "accuracy", "finite", "Points"]
    points = found["Points"].reshape(-1, 3)
    highest = max(loss("sdt", a, b) for a, b in itertools.product(ALPHAS, BETAS) if (a, b) != (0.0, 0.5))
    for n, (b, a) in enumerate(itertools.product(BETAS, ALPHAS)):
        if (a, b) == (0.0, 0.5):
            assert math.isnan(found["loss_sdt"][n]) and found["loss_tet"][n] == math.inf and found["finite"][n] == 0
            assert points[n].tolist() == [a, b, highest]
        else:
            assert points[n].tolist() == [a, b, loss("sdt", a, b)]
            assert (found["loss_sdt"][n], found["loss_tet"][n]) == (loss("sdt", a, b), loss("tet", a, b))
            assert (found["accuracy"][n], found["finite"][n]) == (accuracy(a, b), 1)


def test_a_line_for_paraview_with_another_objective_as_its_height():
    extent, shown, found = arrays(vts(landscape(betas=(0.0,)), "tet"))
    assert extent == [0, 3, 0, 0, 0, 0] and shown == "loss_tet"
    heights = found["Points"].reshape(-1, 3)[:, 2].tolist()
    expected = [loss("tet", a, 0.0) for a in ALPHAS]
    assert [heights[0], *heights[2:]] == [expected[0], *expected[2:]] and heights[1] == max(heights)


def test_a_landscape_without_a_finite_point_lies_at_zero():
    result = landscape(alphas=(0.0,), betas=(0.0,))
    assert arrays(vts(result))[2]["Points"].tolist() == [0.0, 0.0, 0.0]


# --- CSV, and what is refused ---


def test_csv_of_several_results_is_their_combined_table(tmp_path):
    found = [
        Result(
            "fisher_trace", pd.DataFrame({"timestep": [1, 2], "trace": [1 / 3, math.nan]}), {}, {**SOURCE, "epoch": e}
        )
        for e in (1, 2)
    ]
    export(found, tmp_path / "all.csv")
    read = pd.read_csv(tmp_path / "all.csv", dtype={"trace": str}).astype({"trace": float})
    assert read["trace"].tolist()[::2] == [1 / 3] * 2 and read["trace"].isna().sum() == 2
    pd.testing.assert_frame_equal(read, combine(found), check_dtype=False, check_exact=True)
    export([landscape()], tmp_path / "one.csv")
    assert pd.read_csv(tmp_path / "one.csv")["directions"].unique().tolist() == ["random, seed 0"]


@pytest.mark.parametrize(
    ("given", "name", "objective", "said"),
    [
        ([landscape()], "x.vtp", None, r"^The file is '.*x\.vtp'; end it in \.csv, \.h5 or \.vts\.$"),
        ([landscape()] * 2, "x.h5", None, r"^A \.h5 holds one result, and 2 were given; export each to its own file\.$"),
        ([], "x.vts", None, r"^A \.vts holds one result, and 0 were given"),
        ([landscape()], "x.h5", "trt", r"^objective is 'trt'; this result has 'sdt', 'tet'\.$"),
        ([landscape()], "x.csv", "sdt", r"^A \.csv holds every objective; leave objective out, or export to \.h5 or"),
        ([Result("fisher_trace", pd.DataFrame(), {})], "x.vts", None,
         r"^A fisher_trace result is no loss slice; give one of snnprobe landscape, or export to \.csv\.$"),
        ([Result("loss_slice", landscape().table[:-1], {})], "x.h5", None, "^a slice has 11 of its 12 points; resume it"),
    ],
)  # fmt: skip
def test_what_cannot_be_exported_is_refused_and_nothing_written(tmp_path, given, name, objective, said):
    with pytest.raises(ValueError, match=said):
        export(given, tmp_path / name, objective=objective)
    assert list(tmp_path.iterdir()) == []


def test_hdf5_without_h5py(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(RuntimeError, match=r"^The package h5py is missing; install it: pip install h5py$"):
        export([landscape()], tmp_path / "x.h5")
    assert list(tmp_path.iterdir()) == []
    export([landscape()], tmp_path / "x.vts")


def test_the_command(tmp_path):
    for name in ("a", "b"):
        save(landscape(), tmp_path / f"{name}.json")
    for suffix, expected in ((".h5", hdf5), (".vts", vts)):
        out = tmp_path / "new" / f"surface{suffix}"
        assert run("export", tmp_path / "a.json", "-o", out, "--objective", "tet").stdout == f"{out}\n"
        read = (lambda content: str(datasets(content))) if suffix == ".h5" else bytes
        assert read(out.read_bytes()) == read(expected(landscape(), "tet"))
    both = tmp_path / "a.json", tmp_path / "b.json"
    run("export", *both, "-o", tmp_path / "both.csv")
    assert len(pd.read_csv(tmp_path / "both.csv")) == 48
    assert failed("export", *both, "-o", tmp_path / "x.h5").startswith("A .h5 holds one result, and 2 were given")
    said = failed("export", *both, "-o", tmp_path / "x.vtk", status=2)
    assert said == f"-o is '{tmp_path / 'x.vtk'}'; end it in .csv, .h5 or .vts."
    (tmp_path / "list.json").write_text("[{}, {}]")
    said = failed("export", tmp_path / "list.json", "-o", tmp_path / "x.csv")
    assert said == f"{tmp_path / 'list.json'} holds a list of 2; give a file of one result, as probes save them"


def test_table_of_tells_directions_apart_for_landscapes_alone():
    assert "directions" in slices.table_of([landscape()])
    assert "directions" not in slices.table_of([Result("fisher_trace", pd.DataFrame({"trace": [1.0]}), {})])


def test_exporting_needs_no_torch(tmp_path):
    save(landscape(), tmp_path / "a.json")
    code = (
        "import sys; from snn_probe.tables.exports import export; from snn_probe.results import load; "
        "[export([load('a.json')], 'a' + suffix) for suffix in ('.h5', '.vts', '.csv')]; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == "False\n"
