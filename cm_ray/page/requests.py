"""Requests that the page answers: for names that it knows, of a limited size, and of its own kinds."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, TypeAlias

from cm_ray.data.pictures.uploads import MOST_BYTES
from cm_ray.hosts import host_of, is_known, known_names

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]

ENVELOPE_BYTES = 1 << 20
"""Bytes that a request may have in addition to an uploaded file."""
_POSTED = ("upload", "queue/join", "component_server", "cancel", "reset")
"""Paths that the page sends POST requests to."""


class KnownHosts:
    """ASGI middleware that answers 421 to requests for a host name that the page was not started for.

    See `cm_ray.hosts`.
    """

    def __init__(self, app: Application, names: Iterable[str]) -> None:
        """Answer for addresses, `localhost`, and these names in any case."""
        self.app = app
        self.names = known_names(names)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on if it is for a known host."""
        served = scope["type"] in ("http", "websocket")
        if served and not is_known(host_of(scope["headers"]), self.names):
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
                return
            await _refuse(
                send, 421, "This page was not started for this host name; its setting host_names can name it."
            )
            return
        await self.app(scope, receive, send)


class RequestLimit:
    """ASGI middleware that answers 413 to a request with a larger body, without reading it to the end.

    Requests that Gradio supports and the page never sends (download an address, cut a video) are answered
    with 403.
    """

    def __init__(self, app: Application, most: int) -> None:
        self.app, self.most = app, most

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on and count the bytes of its body."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if not announced.isdigit() or int(announced) > self.most:
            await _refuse(send, 413, f"A request may have at most {MOST_BYTES >> 20} MiB.")
            return
        if not _is_the_pages(scope):
            await _refuse(send, 403, "This page does not support this request.")
            return
        from starlette.requests import ClientDisconnect

        with contextlib.suppress(ClientDisconnect):  # a client that disconnects is no error
            await self.app(scope, self._counted(receive), send)

    def _counted(self, receive: Receive) -> Receive:
        """Return `receive`, with an end of the request when its body is larger than announced and allowed."""
        total = 0

        async def counted() -> Message:
            nonlocal total
            message = await receive()
            total += len(message.get("body", b""))
            return {"type": "http.disconnect"} if total > self.most else message

        return counted


def _is_the_pages(scope: Message) -> bool:
    if scope["method"] in ("GET", "HEAD"):
        return "://" not in scope["path"]
    return scope["path"].rstrip("/").removeprefix("/gradio_api/") in _POSTED


async def _refuse(send: Send, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
