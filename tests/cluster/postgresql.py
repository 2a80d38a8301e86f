"""A PostgreSQL server of its own on the loopback, for tests; Debian's package postgresql has the programs."""

import contextlib
import itertools
import os
import shutil
import socket
import subprocess
import tempfile
import urllib.parse
from pathlib import Path

import pytest

from tests.waiting import LIMIT_S


class PostgreSQL:
    """A server; `database()` returns the SQLAlchemy address of a new database."""

    def __init__(self, programs):
        self.programs = programs
        self.folder = Path(tempfile.mkdtemp(prefix="cmr-pg", dir="/tmp"))
        self.user = "postgres" if os.geteuid() == 0 else None  # the server does not run as root
        if self.user:
            shutil.chown(self.folder, self.user)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.numbers = itertools.count()
        self._do(
            "initdb", "--auth", "trust", "--username", "tester", "--no-sync", "--pgdata", self.folder / "data"
        )
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c fsync=off -k {self.folder}"
        log = self.folder / "log"
        self._do("pg_ctl", "start", "--wait", "-D", self.folder / "data", "-l", log, "-o", options)

    def database(self):
        name = f"studies{next(self.numbers)}"
        self._do("createdb", "-h", "127.0.0.1", "-p", self.port, "-U", "tester", name)
        return f"postgresql+psycopg2://tester@127.0.0.1:{self.port}/{urllib.parse.quote(name)}"

    def stop(self):
        with contextlib.suppress(subprocess.CalledProcessError):
            self._do("pg_ctl", "stop", "--wait", "--mode", "immediate", "-D", self.folder / "data")
        shutil.rmtree(self.folder, ignore_errors=True)

    def _do(self, program, *words):
        subprocess.run(
            [self.programs / program, *map(str, words)],
            cwd=self.folder,
            user=self.user,
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=LIMIT_S,
        )


def start_postgresql():
    """Start a server, or skip the test and say why."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not folders:
        pytest.skip("PostgreSQL's server is not installed (Debian's package postgresql)")
    pytest.importorskip("psycopg2", reason="PostgreSQL's driver, psycopg2-binary, is not installed")
    return PostgreSQL(folders[-1].parent)
