"""``snnprobe landscape`` and ``hessian --layer``: where directions come from, what is written, what is refused."""

import numpy as np
import pandas as pd
import pytest
import torch
from commands import failed, run, whole_file

from snn_probe import results
from snn_probe.checkpoint import build_model, load
from snn_probe.commands.landscape import _covering
from snn_probe.data import batches
from snn_probe.data import load as load_data
from snn_probe.objectives import SDT
from snn_probe.parameters import trainable
from snn_probe.probes import hessian_eigenvalues
from snn_probe.probes.directions import pca_plane
from snn_probe.tables.flatness import flatness
from snn_probe.training import evaluate

FEW = ("--num-examples", 12, "--points", 5)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of four epochs, and the folder of its checkpoints."""
    folder = tmp_path_factory.mktemp("run") / "run"
    small = "--epochs 4 --train-examples 60 --batch-size 16 --num-steps 2 --learning-rate 0.01 --save-epochs 1,2,3"
    run("train", *small.split(), "--out", folder)
    return folder / "checkpoints"


def loss_of(path):
    split = load_data("digits", "train", num_examples=12)
    return evaluate(build_model(load(path)), batches(split, 12)).loss


def row(result, objective, alpha, beta=0.0):
    rows = result.table.query("objective == @objective")
    near = np.isclose(rows["alpha"], alpha) & np.isclose(rows["beta"], beta)
    return rows[near].iloc[0]


def test_a_line_ends_at_the_other_checkpoint_as_it_is_evaluated(trained, tmp_path):
    """Batch-norm statistics move too, so alpha = 1 is the other network itself."""
    first, last = trained / "epoch_0002.pt", trained / "last.pt"
    run("landscape", first, "--to", last, *FEW, "--out", tmp_path, "--no-figure")
    found = results.load(tmp_path / "landscape_epoch_0002.json")
    card = load(last).card
    assert found.settings["directions"] == (
        f"line to last.pt of {card['run']}, epoch {card['epoch']} (weights {card['sha256'][:8]})"
    )
    assert row(found, "sdt", 0.0)["loss"] == pytest.approx(loss_of(first), rel=1e-6)
    assert row(found, "sdt", 1.0)["loss"] == pytest.approx(loss_of(last), rel=1e-5)
    assert loss_of(first) != pytest.approx(loss_of(last), rel=1e-3)


def test_the_plane_of_a_run_with_its_trajectory(trained, tmp_path):
    done = run("landscape", trained / "last.pt", "--along", "pca", *FEW, "--out", tmp_path)
    found = results.load(tmp_path / "landscape_last.json")
    run_of = [load(trained / f"epoch_000{epoch}.pt") for epoch in (1, 2, 3)] + [load(trained / "last.pt")]
    names = list(trainable(build_model(run_of[-1])))
    plane = pca_plane([{name: c.state_dict[name] for name in names} for c in run_of])
    trajectory = pd.DataFrame(found.settings["trajectory"])
    assert trajectory["epoch"].to_list() == [1, 2, 3, 4]
    np.testing.assert_allclose(trajectory[["alpha", "beta"]], plane.coordinates[["alpha", "beta"]])
    assert found.settings["explained"] == pytest.approx(plane.explained)
    assert f"the plane holds {sum(plane.explained):.1%} of the run's squared distances" in done.stdout
    for name in ("alpha", "beta"):
        axis = found.table[name]
        assert 0.0 in axis.to_list() and axis.nunique() == 5
        assert axis.min() <= trajectory[name].min() and trajectory[name].max() <= axis.max()
    assert whole_file(tmp_path / "loss_contour.png") and whole_file(tmp_path / "loss_surface.pdf")
    axes = _drawn(tmp_path / "landscape_last.json").axes[0]
    assert axes.get_xlabel() == f"PC 1 ({plane.explained[0]:.0%})"
    line = next(line for line in axes.lines if line.get_label().startswith("training"))
    np.testing.assert_allclose(line.get_xdata(), trajectory["alpha"])


def _drawn(path):
    from snn_probe.figures import draw, figure_options
    from snn_probe.results import combine

    found = results.load(path)
    return draw("loss_contour", combine([found]), **figure_options("loss_contour", [found]))


def test_along_an_eigenvector_the_relaxed_direction_is_a_unit_vector(trained, tmp_path):
    run("landscape", trained / "last.pt", "--along", "eigenvectors", *FEW, "--out", tmp_path, "--no-figure")
    found = results.load(tmp_path / "landscape_last.json")
    assert found.settings["direction_norms"] == pytest.approx([1.0], rel=1e-5)
    split = load_data("digits", "train", num_examples=12)
    top = hessian_eigenvalues(build_model(load(trained / "last.pt")), batches(split, 64), SDT(), k=1)
    expected = f"top eigenvectors of the Hessian (sdt, spiking forward; {top.table['eigenvalue'][0]:.4g})"
    assert found.settings["directions"] == expected


def test_several_random_directions_give_flatness_with_its_spread(trained, tmp_path):
    more = ("--num-directions", 3, "--seed", 5, "--level", 0.5, "--radius", 0.5)
    done = run("landscape", trained / "last.pt", *FEW, *more, "--out", tmp_path)
    each = [results.load(tmp_path / f"landscape_seed{seed}_last.json") for seed in (5, 6, 7)]
    found = pd.read_csv(tmp_path / "flatness.csv").query("objective == 'tet'")
    rises = [flatness(one.table, level=0.5, radius=0.5).query("objective == 'tet'")["rise"].item() for one in each]
    assert found["rise"].to_list() == pytest.approx(rises) and len(set(rises)) == 3
    spread = f"rise {np.mean(rises):.4g} +- {np.std(rises, ddof=1):.2g} over 3 directions"
    assert spread in done.stdout
    assert len(pd.read_csv(tmp_path / "landscape.csv")) == 3 * 2 * 5 and whole_file(tmp_path / "loss_line.png")


def test_coverage_of_a_trajectory_has_the_network_on_its_grid():
    for values in ([0.0, 3.0, 1.0], [-2.0, 5.0, 0.0], [-1e-3, 0.0]):
        axis = _covering(values, 9)
        steps = np.diff(axis)
        assert len(axis) == 9 and 0.0 in axis and steps == pytest.approx([steps[0]] * 8)
        assert axis[0] < min(values) and max(values) < axis[-1]
    assert _covering([0.0, 1.0], 2) == pytest.approx([-0.2, 1.2])


def test_curvature_of_one_layer(trained, tmp_path):
    done = run("hessian", trained / "last.pt", "--layer", "net.conv1", "--layer", "net.classifier", "-k", 2,
               "--quantity", "eigenvalues", "--objective", "sdt", "--num-examples", 12, "--out", tmp_path)  # fmt: skip
    split = load_data("digits", "train", num_examples=12)
    for layer in ("net.conv1", "net.classifier"):
        found = results.load(tmp_path / layer / "hessian_eigenvalues_last.json")
        inside = dict(params=lambda name, layer=layer: name.startswith(layer + "."))
        expected = hessian_eigenvalues(build_model(load(trained / "last.pt")), batches(split, 64), SDT(), k=2, **inside)
        pd.testing.assert_frame_equal(found.table, expected.table)
        assert layer in done.stdout.splitlines()
    each = run("hessian", trained / "last.pt", "--layer", "each", "-k", 1, "--quantity", "eigenvalues",
               "--num-examples", 4, "--no-figure", "--out", tmp_path / "each")  # fmt: skip
    layers = [line for line in each.stdout.splitlines() if line.startswith("net.")]
    assert layers == ["net.conv1", "net.bn1", "net.conv2", "net.bn2", "net.classifier"]


def test_mistakes_are_one_sentence(trained, tmp_path):
    last = trained / "last.pt"

    def said(*arguments, status=2):
        return failed("landscape", last, *arguments, "--num-examples", 4, "--out", tmp_path, status=status)

    assert "--plane and --to exclude each other" in said("--plane", "--to", last)
    assert "--to and --along pca exclude each other" in said("--to", last, "--along", "pca")
    assert "--num-directions counts random slices" in said("--num-directions", 2, "--along", "eigenvectors")
    assert "--along pca takes one checkpoint" in said(trained / "epoch_0002.pt", "--along", "pca")
    assert "--radius is 2, but the grid reaches 1" in said("--radius", 2)
    assert "is not in the range x>=2" in said("--points", 1)
    assert "The two checkpoints are equal" in said("--to", last, status=1)
    first = failed("landscape", trained / "epoch_0002.pt", "--along", "pca", "--num-examples", 4, status=1)
    assert first.endswith("has 1 epoch_*.pt from before epoch_0002.pt, and the plane of a run needs at least 2; "
                          "train with --save-epochs 1,5,10,...")  # fmt: skip
    assert "--layer is 'conv9'; this network has net.conv1, " in failed("hessian", last, "--layer", "conv9", status=2)
    assert "--json prints one document" in failed("hessian", last, "--layer", "each", "--json", status=2)


def test_a_line_to_another_network_is_refused(trained, tmp_path):
    run(
        "train", *"--dataset event-digits --epochs 1 --train-examples 20 --num-steps 2".split(), "--out", tmp_path / "b"
    )
    other = tmp_path / "b" / "checkpoints" / "last.pt"
    said = failed("landscape", trained / "last.pt", "--to", other, "--num-examples", 4, "--out", tmp_path, status=1)
    assert said.startswith(f"--to {other}: other has shape (32, 2, 3, 3) for 'net.conv1.weight'")
    assert torch.load(other, weights_only=True)["format"]
