"""The statistics of a data set are computed once, and found again only for the same content."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

from cm_ray.data.shards.manifest import Manifest
from cm_ray.data.shards.shard_file import write_shard
from cm_ray.evaluation.reference import (
    Shards,
    keep_features,
    keep_statistics,
    kept_features,
    kept_statistics,
    reference_statistics,
)
from cm_ray.metrics.statistics import FeatureStatistics


@dataclass(frozen=True)
class Pixels:
    """An extractor whose features are six pixels; it remembers how many images it saw at a time."""

    name: str = "pixels"
    weights_sha256: str = "ab" * 32
    preprocess: str = "none"
    dim: int = 6
    seen: list[int] = field(default_factory=list)

    def features(self, images):
        self.seen.append(len(images))
        return images.flatten(1)[:, : self.dim].float() / 255


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CM_RAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "references"


def pictures(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 1, 8, 8), dtype=np.uint8)


def make_shards(folder, *parts, source="random"):
    folder.mkdir()
    shards = tuple(
        write_shard(folder / f"shard-{index}.parquet", part, np.full(len(part), -1))
        for index, part in enumerate(parts)
    )
    manifest = Manifest(shape=(1, 8, 8), class_names=(), source=source, recipe="x", skipped=0, shards=shards)
    manifest.save(folder)
    return manifest


def same(a, b):
    return a.n == b.n and np.array_equal(a.total, b.total) and np.array_equal(a.outer, b.outer)


def test_statistics_are_those_of_all_images(tmp_path):
    images, extractor = pictures(3000), Pixels()
    make_shards(tmp_path / "shards", images[:1800], images[1800:])
    found = reference_statistics(Shards.open(tmp_path / "shards"), extractor)
    direct = FeatureStatistics.of(Pixels().features(torch.from_numpy(images)))
    assert found.n == 3000
    np.testing.assert_allclose(found.total, direct.total, rtol=1e-13)
    np.testing.assert_allclose(found.outer, direct.outer, rtol=1e-13)
    assert sum(extractor.seen) == 3000
    assert max(extractor.seen) <= 1024, "a data set need not fit into memory"


def test_they_are_computed_once(tmp_path, cache):
    make_shards(tmp_path / "shards", pictures(40))
    first = reference_statistics(Shards.open(tmp_path / "shards"), Pixels())
    again = Pixels()
    assert same(reference_statistics(Shards.open(tmp_path / "shards"), again), first)
    assert again.seen == []
    (tmp_path / "shards").rename(tmp_path / "elsewhere")
    assert same(reference_statistics(Shards.open(tmp_path / "elsewhere"), again), first)
    assert again.seen == []
    assert len(list(cache.iterdir())) == 1


OTHERS = {"weights_sha256": "cd" * 32, "preprocess": "resized", "name": "six-pixels"}


@pytest.mark.parametrize("entry", OTHERS)
def test_another_extractor_has_another_file(entry, tmp_path, cache):
    manifest, other = (
        make_shards(tmp_path / "shards", pictures(40)),
        replace(Pixels(), **{entry: OTHERS[entry]}),
    )
    reference_statistics(Shards.open(tmp_path / "shards"), Pixels())
    keep_features(manifest, Pixels(), torch.ones(40, 6))
    assert kept_statistics(manifest, other) is None
    assert kept_features(manifest, other, 40) is None
    reference_statistics(Shards.open(tmp_path / "shards"), other)
    assert len(list(cache.iterdir())) == 3


def test_other_images_have_other_files(tmp_path):
    images = pictures(40)
    one = make_shards(tmp_path / "one", images)
    keep_statistics(one, Pixels(), FeatureStatistics.of(torch.ones(40, 6)))
    keep_features(one, Pixels(), torch.ones(40, 6))
    changed = images.copy()
    changed[7, 0, 3, 3] ^= 1
    for name, other in {"changed": changed, "fewer": images[:-1], "twice": images.repeat(2, 0)}.items():
        manifest = make_shards(tmp_path / name, other)
        assert kept_statistics(manifest, Pixels()) is None
        assert kept_features(manifest, Pixels(), manifest.count) is None


def test_features_follow_the_order_and_statistics_do_not(tmp_path):
    images = pictures(40)
    one = make_shards(tmp_path / "one", images[:20], images[20:])
    statistics = reference_statistics(Shards.open(tmp_path / "one"), Pixels())
    features = Pixels().features(torch.from_numpy(images))
    keep_features(one, Pixels(), features)
    found = kept_features(one, Pixels(), 40)
    assert torch.equal(found, features)
    assert found.dtype == features.dtype
    for name, parts in {
        "swapped": (images[20:], images[:20]),
        "reversed": (images[:20][::-1], images[20:]),
        "cut otherwise": (images[:30], images[30:]),
    }.items():
        other = make_shards(tmp_path / name, *parts)
        assert other.fingerprint == one.fingerprint
        assert same(kept_statistics(other, Pixels()), statistics)
        assert kept_features(other, Pixels(), 40) is None, name


@pytest.mark.parametrize("cut", [0, 5, -1])
def test_a_file_that_is_cut_off_is_made_again(cut, tmp_path, cache):
    manifest = make_shards(tmp_path / "shards", pictures(40))
    first = reference_statistics(Shards.open(tmp_path / "shards"), Pixels())
    (file,) = cache.iterdir()
    file.write_bytes(file.read_bytes()[:cut])
    assert kept_statistics(manifest, Pixels()) is None
    assert not file.exists()
    again = Pixels()
    assert same(reference_statistics(Shards.open(tmp_path / "shards"), again), first)
    assert again.seen == [40]


def test_a_file_of_something_else_is_made_again(tmp_path, cache):
    manifest = make_shards(tmp_path / "shards", pictures(40))
    first = reference_statistics(Shards.open(tmp_path / "shards"), Pixels())
    (statistics,) = cache.iterdir()
    keep_features(manifest, Pixels(), torch.ones(40, 6))
    (features,) = set(cache.iterdir()) - {statistics}
    features.replace(statistics)
    assert kept_statistics(manifest, Pixels()) is None
    assert same(reference_statistics(Shards.open(tmp_path / "shards"), Pixels()), first)


def test_names_of_files_are_plain_whatever_the_source_is_called(tmp_path, cache):
    make_shards(tmp_path / "shards", pictures(4), source="../my data: 5/8")
    reference_statistics(Shards.open(tmp_path / "shards"), replace(Pixels(), name="own.module:factory"))
    (file,) = cache.iterdir()
    assert file.parent == cache
    assert file.name.startswith("..-my-data--5-8-own.module-factory-statistics-")
