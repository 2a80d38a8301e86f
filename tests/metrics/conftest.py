"""One trained digits extractor for all tests of the folder."""

import pytest

from cm_ray.metrics.extractors import open_extractor


@pytest.fixture(scope="session")
def extractor_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def extractor(extractor_cache, monkeypatch):
    monkeypatch.setenv("CM_RAY_CACHE", str(extractor_cache))
    return open_extractor("digits")
