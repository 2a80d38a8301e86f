"""A store that all tests of this folder share, and the environment in which it is found."""

import pytest

from tests.remote.store_server import StoreServer


@pytest.fixture(scope="session")
def store_server():
    """An S3-compatible server on the loopback."""
    server = StoreServer()
    yield server
    server.stop()


@pytest.fixture
def store(store_server, monkeypatch):
    """The server, with its credentials in the environment."""
    for name, value in store_server.environment.items():
        monkeypatch.setenv(name, value)
    return store_server
