"""Actors bring back results, in memory and in a file, whole and in order, or not at all."""

import itertools

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cm_ray.cluster.pool.result import SampleResult, TaskResult, joined
from cm_ray.metrics.statistics import FeatureStatistics

KINDS = ("images", "features", "statistics", "classes")
SUBSETS = [frozenset(chosen) for count in (1, 2, 3, 4) for chosen in itertools.combinations(KINDS, count)]
ALL = frozenset(KINDS)


def task_result(size, outputs=ALL, seed=0):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(size, 6, generator=generator)
    return TaskResult(
        size,
        torch.randint(0, 256, (size, 1, 4, 4), generator=generator, dtype=torch.uint8),
        features,
        FeatureStatistics.of(features),
        torch.bincount(torch.randint(0, 5, (size,), generator=generator)),
        seconds=size * (1 + seed),
    )._replace(**dict.fromkeys(ALL - outputs))


def result(outputs=ALL, sizes=(5, 3, 4), start=0):
    made = SampleResult()
    for seed, size in enumerate(sizes, start):
        made.append(task_result(size, outputs, seed))
    return made


def same(a, b):
    statistics = (a.statistics is None) == (b.statistics is None)
    if a.statistics is not None and b.statistics is not None:
        statistics = a.statistics.n == b.statistics.n and all(
            np.array_equal(getattr(a.statistics, name), getattr(b.statistics, name))
            for name in ("total", "outer")
        )
    tensors = all(
        (x is None) == (y is None) and (x is None or (torch.equal(x, y) and x.dtype == y.dtype))
        for x, y in ((a.images, b.images), (a.features, b.features), (a.classes, b.classes))
    )
    return statistics and tensors and (a.count, a.seconds_per_1000) == (b.count, b.seconds_per_1000)


def test_units_are_put_together_in_order():
    made, units = result(), [task_result(size, seed=seed) for seed, size in enumerate((5, 3, 4))]
    assert made.count == 12
    assert torch.equal(made.images, torch.cat([one.images for one in units]))
    assert torch.equal(made.features, torch.cat([one.features for one in units]))
    np.testing.assert_allclose(made.statistics.outer, (made.features.T @ made.features).double(), rtol=1e-5)
    assert made.classes.sum() == 12
    assert made.seconds_per_1000 == 2000, "the median of the units"
    assert made.images.data_ptr() == made.images.data_ptr(), "joined once, and not held beside its units"


@pytest.mark.parametrize("outputs", SUBSETS, ids=lambda outputs: "+".join(sorted(outputs)))
def test_what_is_saved_comes_back(outputs, tmp_path):
    made, file = result(outputs), tmp_path / "deep" / "part.safetensors"
    made.save(file)
    assert same(SampleResult.load(file, outputs), made)
    assert [path.name for path in file.parent.iterdir()] == [file.name], "nothing half-written is left"
    for other in SUBSETS:
        found = SampleResult.load(file, other)
        assert (found is not None) == (other <= outputs)
        if found is not None:
            assert {kind for kind in KINDS if getattr(found, kind) is not None} == other, (
                "no more than outputs"
            )
    assert file.is_file(), "a file that lacks something is whole"


def test_what_came_back_is_saved_again(tmp_path):
    made = result()
    made.save(tmp_path / "a")
    back = SampleResult.load(tmp_path / "a", ALL)
    back.append(task_result(2, seed=9))
    back.save(tmp_path / "b")
    assert SampleResult.load(tmp_path / "b", ALL).count == 14
    assert same(SampleResult.load(tmp_path / "a", ALL), made)


@pytest.mark.parametrize("cut", [0, 4, 50, -1, -300])
def test_a_file_that_is_cut_off_is_not_there(cut, tmp_path):
    file = tmp_path / "part.safetensors"
    result().save(file)
    file.write_bytes(file.read_bytes()[:cut])
    assert SampleResult.load(file, ALL) is None
    assert not file.exists()
    assert SampleResult.load(file, ALL) is None


@pytest.mark.parametrize("metadata", [None, {"other": "1"}])
def test_a_file_of_another_kind_is_not_there(metadata, tmp_path):
    file = tmp_path / "part.safetensors"
    save_file({"seconds": torch.ones(1, dtype=torch.float64), "images": torch.ones(3)}, file, metadata)
    assert SampleResult.load(file, frozenset(["images"])) is None
    assert not file.exists()


@pytest.mark.parametrize("what", ["images", "features"])
def test_parts_are_joined_and_not_held_twice(what):
    parts = [result(sizes=(5, 3)), result(sizes=(4,), start=2), result(sizes=(1, 1), start=3)]
    expected = torch.cat([getattr(part, what) for part in parts])
    whole = joined(parts, what)
    assert torch.equal(whole, expected)
    place = 0
    for part in parts:
        tensor = getattr(part, what)
        assert torch.equal(tensor, whole[place : place + part.count])
        assert tensor.data_ptr() == whole[place:].data_ptr(), "a view of the whole"
        place += part.count
    assert joined([result(frozenset(["statistics"]))], what) is None
    assert joined([], what) is None


def test_a_view_of_the_whole_is_saved_alone(tmp_path):
    parts = [result(), result(start=5)]
    joined(parts, "images")
    parts[1].save(tmp_path / "part")
    assert same(SampleResult.load(tmp_path / "part", ALL), result(start=5))
    assert (tmp_path / "part").stat().st_size < 3000
