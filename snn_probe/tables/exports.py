"""Results as files of other programs: CSV, HDF5 as the loss-landscape program has it, VTK's XML for ParaView."""

from __future__ import annotations

import base64
import io
import os
import struct
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from snn_probe import __version__
from snn_probe.machine.files import write_atomically
from snn_probe.results import IDENTIFYING, Result
from snn_probe.tables.slices import Slice, slices, table_of

SUFFIXES = (".csv", ".h5", ".vts")
_TELLING = ("split", "num_examples", "group_size", "labels", "readout", "operator", "forward")
"""Settings without which rows of different results should not be compared."""


def export(results: Sequence[Result], path: str | os.PathLike[str], *, objective: str | None = None) -> None:
    """Write results to ``path``, in the format that its suffix names.

    ``.csv``: all rows of one or more results of a probe, in full precision, each row beginning with what it was
    measured on; NaN is empty. ``.h5`` and ``.vts``: one result of ``loss_slice``, see :func:`hdf5` and :func:`vts`;
    ``objective`` is the loss to export, by default the result's first.

    Raises ValueError for another suffix, several results in an .h5 or .vts, another probe's result, or an objective
    that the result does not have; RuntimeError for .h5 without the package h5py; OSError when the file cannot be
    written.
    """
    suffix = Path(path).suffix
    if suffix not in SUFFIXES:
        raise ValueError(f"The file is {os.fspath(path)!r}; end it in .csv, .h5 or .vts.")
    if suffix == ".csv":
        if objective is not None:
            raise ValueError("A .csv holds every objective; leave objective out, or export to .h5 or .vts.")
        write_atomically(path, csv(results))
        return
    if len(results) != 1:
        raise ValueError(f"A {suffix} holds one result, and {len(results)} were given; export each to its own file.")
    write_atomically(path, {".h5": hdf5, ".vts": vts}[suffix](results[0], objective))


def csv(results: Sequence[Result]) -> str:
    """The combined table of results of one probe, with a column for each setting in which they differ."""
    table, counts = table_of(results), [len(result.table) for result in results]
    for name in reversed(_TELLING):
        values = [result.settings.get(name) for result in results]
        if len(set(map(str, values))) > 1 and name not in table:
            table.insert(len(IDENTIFYING), name, [v for v, n in zip(values, counts, strict=True) for _ in range(n)])
    return table.to_csv(index=False)


def hdf5(result: Result, objective: str | None = None) -> bytes:
    """A loss slice as a surface file of the program of Li et al. (2018), github.com/tomgoldstein/loss-landscape.

    ``xcoordinates`` (A,) are the alphas; of a plane ``ycoordinates`` (B,) the betas. ``train_loss`` and ``train_acc``
    (in percent) have shape (A,), of a plane (B, A), y first: the order in which that program fills and reads its
    arrays, whatever their sides. They are named ``test_loss`` and so on after the split. A point that was not finite
    is NaN. Of a plane along a run, ``proj_xcoord``, ``proj_ycoord`` and ``explained_variance_ratio_`` hold the
    trajectory, so one file serves as that program's --surf_file, --proj_file and --dir_file. Attributes tell the rest.
    """
    try:
        import h5py
    except ImportError:
        raise RuntimeError("The package h5py is missing; install it: pip install h5py") from None
    found = _slice(result, objective)[0]
    line = found.betas.tolist() == [0.0]
    split = result.settings.get("split", "train")
    datasets = {"xcoordinates": found.alphas} | ({} if line else {"ycoordinates": found.betas})
    for name, values in ((f"{split}_loss", found.loss), (f"{split}_acc", 100.0 * found.accuracy)):
        datasets[name] = values[:, 0] if line else values.T
    if trajectory := result.settings.get("trajectory"):
        datasets |= {"proj_xcoord": np.array(trajectory["alpha"]), "proj_ycoord": np.array(trajectory["beta"])}
        datasets["explained_variance_ratio_"] = np.array(result.settings["explained"])
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, values in datasets.items():
            file[name] = values
        file.attrs.update({name: value for name, value in _facts(result, found).items() if value is not None})
    return buffer.getvalue()


def vts(result: Result, objective: str | None = None) -> bytes:
    """A loss slice as a structured grid in VTK's XML, which ParaView opens as a surface (a curve, if it is a line).

    Points are (alpha, beta, loss); their data are the loss of every objective (``loss_sdt``, ...), ``accuracy`` (a
    fraction) and ``finite``. Where the loss was not finite the data say NaN or infinity, ``finite`` is 0, and the point
    lies as high as the highest finite one. Numbers are float64 in base64.
    """
    found, *others = _slice(result, objective)
    shape = (len(found.alphas), len(found.betas))
    finite = np.isfinite(found.loss)
    height = np.where(finite, found.loss, max(found.loss[finite].tolist(), default=0.0))
    alphas, betas = np.meshgrid(found.alphas, found.betas, indexing="ij")
    extent = f"0 {shape[0] - 1} 0 {shape[1] - 1} 0 0"
    root = ET.Element("VTKFile", type="StructuredGrid", version="1.0", byte_order="LittleEndian", header_type="UInt64")
    grid = ET.SubElement(root, "StructuredGrid", WholeExtent=extent)
    piece = ET.SubElement(grid, "Piece", Extent=extent)
    data = ET.SubElement(piece, "PointData", Scalars=f"loss_{found.keys['objective']}")
    for one in (found, *others):
        _array(data, f"loss_{one.keys['objective']}", one.loss)
    _array(data, "accuracy", found.accuracy)
    _array(data, "finite", finite)
    _array(ET.SubElement(piece, "Points"), "Points", np.stack([alphas, betas, height], axis=-1))
    ET.indent(root)
    return ET.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


def _array(parent: ET.Element, name: str, values: np.ndarray) -> None:
    """A DataArray of values (A, B) or (A, B, components), alpha fastest."""
    kind, dtype = ("UInt8", "u1") if values.dtype == bool else ("Float64", "<f8")
    content = np.swapaxes(values, 0, 1).astype(dtype).tobytes()
    element = ET.SubElement(parent, "DataArray", type=kind, Name=name, format="binary")
    if values.ndim == 3:
        element.set("NumberOfComponents", str(values.shape[2]))
    element.text = base64.b64encode(struct.pack("<Q", len(content)) + content).decode()


def _slice(result: Result, objective: str | None) -> list[Slice]:
    """The slice of this objective, or of the result's first; behind it those of the others."""
    if result.probe != "loss_slice":
        raise ValueError(
            f"A {result.probe} result is no loss slice; give one of snnprobe landscape, or export to .csv."
        )
    found = {one.keys["objective"]: one for one in slices(result.table)}
    chosen = objective if objective is not None else next(iter(found))
    if chosen not in found:
        raise ValueError(f"objective is {chosen!r}; this result has {', '.join(map(repr, found))}.")
    return [found.pop(chosen), *found.values()]


def _facts(result: Result, found: Slice) -> dict[str, Any]:
    """What it is that was measured, in plain values."""
    settings, config = result.settings, result.source.get("config") or {}
    return {
        "made_by": f"snn_probe {__version__}",
        "objective": found.keys["objective"],
        "run": result.source.get("run"),
        "epoch": result.source.get("epoch"),
        **{name: config.get(name) for name in ("dataset", "model", "method", "seed")},
        **{name: settings.get(name) for name in ("split", "num_examples")},
        "directions": str(settings.get("directions")),
    }
