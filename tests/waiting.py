"""Waiting for events, of processes and of servers: no test depends on how fast the machine is."""

import time
import urllib.error
import urllib.request

LIMIT_S = 600
"""After so long an event is taken as one that never happens. Ten times what a loaded machine needs."""


def wait_for(condition, what, process=None, log=None):
    """Wait until a condition holds; fail after LIMIT_S, or at once when `process` has ended without it.

    condition: called without arguments.  what: the event, for the message.  log: a Path whose text is shown
    when the process has ended.
    """
    until = time.monotonic() + LIMIT_S
    while not condition():
        ended = process.poll() if process else None
        if ended is not None and not condition():  # it may have been its last deed
            text = log.read_text() if log else ""
            raise AssertionError(f"{what} did not happen: the process ended with {ended}\n{text}")
        assert time.monotonic() < until, f"{what} did not happen in {LIMIT_S} s"
        time.sleep(0.02)


def wait_for_server(url, process, log):
    """Wait until a server that `process` is starting answers `url` without an error."""
    wait_for(lambda: answers(url), f"an answer of {url}", process, log)


def answers(url):
    """Tell whether a request is answered without an error."""
    try:
        urllib.request.urlopen(url, timeout=30).close()
    except (OSError, urllib.error.URLError):
        return False
    return True
