"""Addresses of storages are told from paths of files and from names of registered models."""

from pathlib import Path

import pytest

import cm_ray as cm
from cm_ray.errors import UserError
from cm_ray.storage.files import is_address


def test_a_registered_model_is_no_address_of_a_storage():
    assert [is_address(place) for place in ("s3://a/b", "HTTPS://a/b", Path("gs:/a/b"))] == [True] * 3
    assert not any(is_address(place) for place in ("models:/digits@champion", "runs/demo", "/a:/b", "C"))


def test_a_registered_model_is_looked_for_in_the_registry(tmp_path):
    with pytest.raises(UserError, match=r"There is no MLflow store"):
        cm.load("models:/nobody@champion", tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
