"""Improved precision and recall against brute force, extremes, and in little memory."""

import subprocess
import sys

import pytest
import torch

from cm_ray.errors import UserError
from cm_ray.metrics import manifold
from cm_ray.metrics.manifold import neighbour_distances, precision_and_recall


def features(n, d=3, seed=0, shift=0.0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + shift


def brute_force(x, y, k):
    """The share of x within a ball around some y that reaches to its k-th neighbour in y."""
    radii = [sorted(float((a - b).norm()) for j, b in enumerate(y) if j != i)[k - 1] for i, a in enumerate(y)]
    inside = [any(float((a - b).norm()) <= r for b, r in zip(y, radii, strict=True)) for a in x]
    return sum(inside) / len(x)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("cells", [1 << 26, 100])
def test_it_is_the_definition_in_chunks_or_whole(k, cells, monkeypatch):
    monkeypatch.setattr(manifold, "_CELLS", cells)
    x, y = features(40).double(), features(50, seed=1, shift=0.8).double()
    precision, recall = precision_and_recall(x, y, k=k)
    assert precision.value == pytest.approx(brute_force(x, y, k))
    assert recall.value == pytest.approx(brute_force(y, x, k))
    assert 0.2 < precision.value < 1
    assert precision.settings == {"k": k}


def test_equal_sets_have_both_and_distant_ones_neither():
    x = features(50)
    assert [m.value for m in precision_and_recall(x, x.clone())] == [1, 1]
    assert [m.value for m in precision_and_recall(x, x + 100)] == [0, 0]


def test_a_lost_mode_costs_recall_and_a_false_one_precision():
    one, two = features(200), torch.cat([features(100, seed=1), features(100, seed=2, shift=50)])
    precision, recall = precision_and_recall(one, two)
    assert precision.value > 0.8
    assert recall.value < 0.6
    swapped = precision_and_recall(two, one)
    assert (swapped[0].value, swapped[1].value) == (recall.value, precision.value)


def test_vectors_far_from_the_origin_keep_their_neighbours():
    x, y = features(60), features(60, seed=1)
    near = precision_and_recall(x.double(), y.double())
    far = precision_and_recall((x + 1000), (y + 1000))
    assert abs(near[0].value - far[0].value) <= 0.05


def test_duplicates_have_themselves_as_neighbours():
    x = features(10).repeat_interleave(4, dim=0)
    assert float(neighbour_distances(x, 3).max()) < 1e-5
    assert float(neighbour_distances(x, 4).min()) > 1e-5


def test_chunks_change_no_bit(monkeypatch):
    x, y = features(700, 64), features(900, 64, seed=1, shift=0.1)
    whole = precision_and_recall(x, y)
    assert 0.1 < whole[0].value < 1
    assert 0.1 < whole[1].value < 1
    for cells in (900, 10_000, 77_777):
        monkeypatch.setattr(manifold, "_CELLS", cells)
        assert precision_and_recall(x, y) == whole


@pytest.mark.parametrize(("d", "shift"), [(3, 0.5), (16, 0.5)])
def test_the_errors_are_those_of_repeated_experiments(d, shift):
    reference = features(1000, d, seed=999)
    repeated = [precision_and_recall(features(300, d, seed, shift), reference) for seed in range(40)]
    for measured in zip(*repeated, strict=True):
        deviation = torch.tensor([each.value for each in measured]).std()
        error = sum(each.error for each in measured) / len(measured)
        assert error == pytest.approx(float(deviation), rel=0.5)


@pytest.mark.slow
def test_fifty_thousand_against_fifty_thousand_take_less_than_four_gib():
    """The whole process, with PyTorch, the features of 64 numbers, and all that is computed."""
    program = """if True:
        import resource
        import torch
        from cm_ray.metrics.manifold import precision_and_recall

        generator = torch.Generator().manual_seed(0)
        x, y = (torch.randn(50_000, 64, generator=generator) for _ in range(2))
        precision, recall = precision_and_recall(x, y)
        print(precision.value, recall.value, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    precision, recall, peak_kib = map(float, done.stdout.split())
    assert precision == pytest.approx(recall, abs=0.02)
    assert peak_kib < 4 * 2**20


def test_the_error_of_the_precision_is_binomial():
    precision, _ = precision_and_recall(features(400), features(400, seed=1, shift=1.0), replicates=400)
    expected = (precision.value * (1 - precision.value) / 400) ** 0.5
    assert precision.error == pytest.approx(expected, rel=0.15)


def test_too_few_vectors_or_neighbours_are_refused():
    with pytest.raises(UserError, match="at least 8 images in each set, not 7"):
        precision_and_recall(features(7), features(10))
    with pytest.raises(UserError, match="must be at least 1, not 0"):
        precision_and_recall(features(5), features(10), k=0)
