"""The end of a group waits for a server that is still starting; nothing is lost, and stderr says so."""

import http.server
import json
import os
import threading

import pytest
from tracked_runs import free_port

from cm_ray.tracking import RunGroup
from cm_ray.tracking.store import is_unanswered

RUN = {
    "info": {"run_id": "r", "experiment_id": "1", "status": "RUNNING", "lifecycle_stage": "active"},
    "data": {},
}
EXPERIMENT = {"experiment_id": "1", "name": "cm_ray", "lifecycle_stage": "active"}
ANSWERS = {
    "experiments/get-by-name": {"experiment": EXPERIMENT},
    "runs/search": {"runs": []},
    "runs/create": {"run": RUN},
    "runs/get": {"run": RUN},
    "runs/update": {"run_info": RUN["info"]},
}


class Server(http.server.ThreadingHTTPServer):
    """A group asks this of MLflow's REST API: the first `busy` requests are answered with `status`."""

    def __init__(self, port, *, busy=0, status=503):
        super().__init__(("127.0.0.1", port), Handler)
        self.busy, self.status = busy, status
        self.told, self.timeouts = [], []


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        call = self.path.partition("/mlflow/")[2].partition("?")[0]
        self.server.timeouts.append(int(os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"]))
        self.server.busy -= 1
        if self.server.busy >= 0:
            self.answer(self.server.status, {})
            return
        self.server.told.append((call, json.loads(body) if body else {}))
        self.answer(200, ANSWERS.get(call, {}))

    do_POST = do_GET

    def answer(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def serve():
    """Serve in a thread until the test ends."""
    served = []

    def start(server):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        served.append(server)
        return server

    yield start
    for server in served:
        server.shutdown()
        server.server_close()


def logged_group(folder, port):
    """A group that has something to tell and could not: nobody answered."""
    group = RunGroup(folder, name="table", uri=f"http://127.0.0.1:{port}", experiment="cm_ray")
    group.log(params={"steps": 8}, metrics={"fd": 2.0})
    return group


def assert_told(server):
    sent = [content for call, content in server.told if call == "runs/log-batch"]
    assert [content["params"] for content in sent if "params" in content] == [
        [{"key": "steps", "value": "8"}]
    ]
    assert [content["metrics"][0]["value"] for content in sent if "metrics" in content] == [2.0]
    assert server.told[-1][0] == "runs/update"
    assert server.told[-1][1]["status"] == "FINISHED"


def test_one_that_refuses_connections_at_first(tmp_path, serve, capsys):
    port, server = free_port(), []
    group = logged_group(tmp_path / "table", port)
    assert capsys.readouterr().err.count("Could not reach MLflow") == 1
    timer = threading.Timer(2, lambda: server.append(serve(Server(port))))
    timer.start()
    group.finish("FINISHED")
    timer.join()
    assert_told(server[0])
    said = capsys.readouterr().err
    assert said == (
        f"MLflow at {group.uri} does not answer; waiting up to 120 s for it, to send "
        f"{tmp_path}/table. Ctrl-C ends the waiting.\n"
    )


@pytest.mark.parametrize("status", [503, 429])
def test_one_that_is_busy_at_first(status, tmp_path, serve, capsys):
    port = free_port()
    group = logged_group(tmp_path / "table", port)
    server = serve(Server(port, busy=2, status=status))
    capsys.readouterr()
    group.finish("FINISHED")
    assert_told(server)
    assert min(server.timeouts) > 60, "a slow answer is waited for, too"
    assert capsys.readouterr().err.count("waiting up to 120 s") == 1


def test_one_that_never_answers_is_left_when_patience_ends(tmp_path, serve, capsys):
    port = free_port()
    group = logged_group(tmp_path / "table", port)
    server = serve(Server(port, busy=10**6))
    capsys.readouterr()
    group.finish("FINISHED", patience_s=2)
    assert not server.told
    assert "waiting up to 2 s" in capsys.readouterr().err
    server.busy = 0
    group.finish("FINISHED")
    assert_told(server)


def test_an_answer_that_is_a_refusal_is_not_waited_for(tmp_path, serve, capsys):
    """A pause would last a second, and be said."""
    port = free_port()
    group = logged_group(tmp_path / "table", port)
    server = serve(Server(port, busy=1, status=403))
    capsys.readouterr()
    group.finish("FINISHED")
    assert len(server.timeouts) == 1
    assert "waiting" not in capsys.readouterr().err


def test_what_may_answer_later():
    def failed(status):
        error = OSError("said no")
        error.response = type("Response", (), {"status_code": status})()
        return error

    assert [status for status in (400, 403, 404, 429, 500, 503) if is_unanswered(failed(status))] == [
        429,
        500,
        503,
    ]
    assert is_unanswered(Exception("HTTPConnectionPool(host='x', port=1): Max retries exceeded"))
    assert not is_unanswered(OSError("database is locked"))
