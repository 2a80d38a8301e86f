"""An S3-compatible store on the loopback, with faults on demand: moto's server behind a gate."""

import contextlib
import logging
import threading
import time
import urllib.request

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "tests",
    "AWS_SECRET_ACCESS_KEY": "tests",
    "AWS_REGION": "us-east-1",
    "NO_PROXY": "127.0.0.1",
}


class StoreServer:
    """A running store. `fault` decides what happens to a request: see `_Gate`."""

    def __init__(self):
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self.gate = _Gate(DomainDispatcherApplication(create_backend_app))
        self._server = make_server("127.0.0.1", 0, self.gate, threaded=True)
        self.endpoint = f"http://127.0.0.1:{self._server.port}"
        self.environment = CREDENTIALS | {"AWS_ENDPOINT_URL": self.endpoint}
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.buckets = 0

    def bucket(self):
        """Make a bucket; return its address."""
        self.buckets += 1
        name = f"bucket{self.buckets}"
        urllib.request.urlopen(urllib.request.Request(f"{self.endpoint}/{name}", method="PUT")).close()
        return f"s3://{name}"

    @contextlib.contextmanager
    def faults(self, fault):
        """Let `fault(method, path)` decide about each request, until the block ends."""
        self.gate.fault = fault
        try:
            yield
        finally:
            self.gate.fault = None

    def requests(self, method):
        """Return the paths of all requests of a method that reached the store, in order."""
        return [path for each, path in self.gate.seen if each == method]

    def stop(self):
        """End the server."""
        self._server.shutdown()


class _Gate:
    """A WSGI application before another one.

    fault(method, path): None lets a request through; a number is the status of the answer, and the request
    does not reach the store; ("lost", n) lets it reach the store, and answers with n; ("late", s) waits.
    """

    def __init__(self, store):
        self.store, self.fault, self.seen = store, None, []

    def __call__(self, environ, start_response):
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        fault = self.fault(method, path) if self.fault else None
        if isinstance(fault, tuple) and fault[0] == "late":
            time.sleep(fault[1])
            fault = None
        if isinstance(fault, int):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            return _answer(start_response, fault)
        self.seen.append((method, path))
        if fault is None:
            return self.store(environ, start_response)
        list(self.store(environ, lambda *_: None))
        return _answer(start_response, fault[1])


def _answer(start_response, status):
    start_response(f"{status} Fault", [("Content-Length", "0")])
    return [b""]


if __name__ == "__main__":  # a store in a process of its own
    server = StoreServer()
    print(server.endpoint, flush=True)
    threading.Event().wait()
