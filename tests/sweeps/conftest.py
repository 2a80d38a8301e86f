"""Small matrices: threads for them cost more than they save, a hundredfold on a busy machine."""

import pytest
from threadpoolctl import threadpool_limits


@pytest.fixture(autouse=True, scope="package")
def one_thread():
    with threadpool_limits(1):
        yield
