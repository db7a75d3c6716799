"""Directions in weight space: filter norms, seeds, the line to another network, the plane of a planted trajectory."""

import math

import networks
import numpy as np
import pytest
import torch

from snn_probe.parameters import flatten, trainable
from snn_probe.probes.directions import direction_between, filter_normalized, pca_plane, random_direction


def weights(seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"conv": (4, 3, 3, 3), "norm.weight": (4,), "scale": (), "linear": (5, 8), "linear.bias": (5,)}
    return {name: torch.randn(s, generator=generator, dtype=torch.float64).to(dtype) for name, s in shapes.items()}


# Random directions


def test_the_same_seed_gives_the_same_numbers_whatever_the_weights_are():
    first = random_direction(weights(0), seed=7)
    again = random_direction(weights(1), seed=7)
    single = random_direction(weights(2, torch.float32), seed=7)
    assert list(first) == list(weights())
    for name, d in first.items():
        assert torch.equal(d, again[name])
        assert single[name].dtype == torch.float32 and torch.equal(single[name], d.float())
        assert d.shape == weights()[name].shape


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_same_seed_gives_the_same_numbers_on_every_device():
    params = weights(dtype=torch.float32)
    there = {name: p.cuda() for name, p in params.items()}
    for index in (0, 1):
        here = filter_normalized(random_direction(params, seed=3, index=index), params)
        away = filter_normalized(random_direction(there, seed=3, index=index), there)
        assert all(away[name].is_cuda and torch.equal(away[name].cpu(), d) for name, d in here.items())


def test_seeds_and_indices_give_independent_gaussians():
    """1000 entries each: correlations within 4/sqrt(1000), means and variances within 4 standard errors."""
    params = {"w": torch.zeros(10, 100, dtype=torch.float64)}
    drawn = torch.stack([random_direction(params, seed=s, index=i)["w"].flatten() for s in (0, 1) for i in (0, 1)])
    correlations = torch.corrcoef(drawn) - torch.eye(4)
    assert correlations.abs().max() < 4 / math.sqrt(1000)
    assert drawn.mean(1).abs().max() < 4 / math.sqrt(1000)
    assert (drawn.var(1) - 1).abs().max() < 4 * math.sqrt(2 / 1000)


def test_drawing_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    random_direction(weights(), seed=0)
    assert torch.equal(before, torch.get_rng_state())


def test_every_filter_gets_the_norm_of_its_weights():
    params = weights()
    direction = random_direction(params, seed=0)
    found = filter_normalized(direction, params)
    for name in ("conv", "linear"):
        for d, raw, w in zip(found[name], direction[name], params[name], strict=True):
            assert float(d.norm()) == pytest.approx(float(w.norm()), rel=1e-12)
            assert torch.allclose(d / d.norm(), raw / raw.norm(), rtol=1e-12)
    for name in ("norm.weight", "scale", "linear.bias"):
        assert not found[name].any() and found[name].shape == params[name].shape


def test_filters_of_zero_length_stay_finite():
    params, direction = weights(), random_direction(weights(), seed=0)
    params["conv"][1] = 0.0
    direction["linear"][2] = 0.0
    found = filter_normalized(direction, params)
    assert not found["conv"][1].any() and not found["linear"][2].any()
    assert all(d.isfinite().all() for d in found.values())
    assert found["conv"][0].any() and found["linear"][0].any()


# Lines


def test_the_line_ends_at_the_other_network():
    a, b = weights(0), weights(1)
    line = direction_between(a, b)
    for name in a:
        assert torch.allclose(a[name] + line[name], b[name], rtol=1e-12)


def test_a_line_between_state_dicts_includes_running_statistics_but_no_counters():
    first, second = networks.convolutional(4), networks.convolutional(4, seed=1)
    line = direction_between(first.state_dict(), second.state_dict())
    assert "net.1.running_var" in line and not any("num_batches_tracked" in name for name in line)


def test_lines_are_refused():
    a = weights()
    with pytest.raises(ValueError, match=r"The two checkpoints are equal, so there is no line between them"):
        direction_between(a, weights())
    with pytest.raises(ValueError, match=r"other lacks 'conv'; give tensors of one and the same network"):
        direction_between(a, {n: t for n, t in a.items() if n != "conv"})
    with pytest.raises(ValueError, match=r"other has 'more', which the weights do not have; give tensors of one"):
        direction_between(a, {**a, "more": torch.ones(2)})
    with pytest.raises(ValueError, match=r"other has shape \(5, 9\) for 'linear' where the weights have \(5, 8\)"):
        direction_between(a, {**a, "linear": torch.ones(5, 9)})


# The plane of a training run


def planted(coordinates, noise=0.0):
    """Checkpoints in a known plane around a known last point; its two orthonormal axes."""
    last = weights(9)
    axes = torch.linalg.qr(torch.stack([flatten(weights(10)), flatten(weights(11))]).T)[0].T
    generator = torch.Generator().manual_seed(0)
    found = []
    for a, b in coordinates:
        step = a * axes[0] + b * axes[1]
        step = step + noise * torch.randn(len(step), generator=generator, dtype=torch.float64)
        pieces = step.split([t.numel() for t in last.values()])
        found.append({n: t + s.view(t.shape) for (n, t), s in zip(last.items(), pieces, strict=True)})
    return [*found, last], axes


def test_a_planted_plane_is_found():
    """Points (4, 0), (0, -2), (2, 1): D^T D in the planted axes is [[20, 2], [2, 5]], whose eigenvectors are known."""
    coordinates = np.array([(4.0, 0.0), (0.0, -2.0), (2.0, 1.0)])
    checkpoints, axes = planted(coordinates)
    plane = pca_plane(checkpoints)
    values, vectors = np.linalg.eigh(coordinates.T @ coordinates)
    assert plane.explained == pytest.approx(values[::-1] / 25.0, rel=1e-10)
    assert sum(plane.explained) == pytest.approx(1.0, rel=1e-12)
    flat = torch.stack([flatten(d) for d in plane.directions])
    assert torch.allclose(flat @ flat.T, torch.eye(2, dtype=torch.float64), atol=1e-12)
    assert np.abs((flat @ axes.T).numpy()) == pytest.approx(np.abs(vectors[:, ::-1].T), abs=1e-10)
    table = plane.coordinates
    assert table["checkpoint"].tolist() == [0, 1, 2, 3]
    assert table.loc[3, ["alpha", "beta", "distance"]].tolist() == [0.0, 0.0, 0.0]
    assert np.hypot(table["alpha"], table["beta"]).to_numpy()[:3] == pytest.approx(np.hypot(*coordinates.T), rel=1e-10)
    assert table["distance"].max() < 1e-6
    for name in ("alpha", "beta"):
        assert table[name][table[name].abs().idxmax()] > 0
    for row, checkpoint in zip(table.itertuples(), checkpoints, strict=True):
        moved = flatten(checkpoints[-1]) + row.alpha * flat[0] + row.beta * flat[1]
        assert torch.allclose(moved, flatten(checkpoint), atol=1e-10)


def test_what_lies_out_of_the_plane_is_said():
    checkpoints, _ = planted([(4.0, 0.0), (0.0, -2.0), (2.0, 1.0)], noise=0.1)
    plane = pca_plane(checkpoints)
    flat = torch.stack([flatten(d) for d in plane.directions])
    total = inside = 0.0
    for row, checkpoint in zip(plane.coordinates.itertuples(), checkpoints, strict=True):
        step = flatten(checkpoint) - flatten(checkpoints[-1])
        assert (row.alpha, row.beta) == pytest.approx((flat @ step).tolist(), abs=1e-10)
        assert row.distance == pytest.approx(float((step - flat.T @ (flat @ step)).norm()), abs=1e-7)
        total, inside = total + float(step @ step), inside + row.alpha**2 + row.beta**2
    assert sum(plane.explained) == pytest.approx(inside / total, rel=1e-10)
    assert 0.5 < sum(plane.explained) < 1.0


def test_single_precision_and_real_networks():
    nets = [networks.convolutional(4, seed=s, double=False) for s in range(3)]
    plane = pca_plane([trainable(net) for net in nets])
    flat = torch.stack([flatten(d) for d in plane.directions])
    assert flat.dtype == torch.float32 and not flat.requires_grad
    assert torch.allclose(flat @ flat.T, torch.eye(2), atol=1e-6)


def test_planes_are_refused():
    a = weights()
    with pytest.raises(ValueError, match=r"checkpoints has 2 entries; a plane needs at least 3 of one network"):
        pca_plane([a, weights(1)])
    with pytest.raises(ValueError, match=r"checkpoints\[1\] lacks 'scale'; give tensors of one and the same"):
        pca_plane([a, {n: t for n, t in a.items() if n != "scale"}, weights(1)])
    middle = {n: (t + weights(1)[n]) / 2 for n, t in a.items()}
    for line in ([a, middle, weights(1)], [a, a, a]):
        with pytest.raises(ValueError, match=r"The checkpoints lie on one line \(or are all equal\), so they span no"):
            pca_plane(line)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (dict(seed=-1), r"seed is -1; give a whole number of at least 0\."),
        (dict(seed=0.5), r"seed is 0\.5; give a whole number"),
        (dict(seed=0, index=-1), r"index is -1; give a whole number of at least 0\."),
    ],
)
def test_bad_seeds(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        random_direction(weights(), **options)


def test_normalizing_refuses_another_network():
    with pytest.raises(ValueError, match=r"direction has shape \(5, 9\) for 'linear' where the weights have \(5, 8\)"):
        filter_normalized({**weights(), "linear": torch.ones(5, 9)}, weights())
