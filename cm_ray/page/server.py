"""Who may ask the page for what: an address, and a limit on what comes in."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

import tyro
from PIL import Image

from cm_ray.data.uploads import MOST_BYTES, MOST_PIXELS
from cm_ray.errors import UserError
from cm_ray.networks.reading import load_model
from cm_ray.page.facts import model_facts
from cm_ray.page.playground import Playground
from cm_ray.tracking.locate import locate_model

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

_ENVELOPE_BYTES = 1 << 20
"""What a request may have besides the file that it brings."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """Which model, and where."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """models:/NAME@champion, models:/NAME/3, a run directory or a model's folder."""
    host: str = "127.0.0.1"
    """Address to listen at. The page asks for no password: on 0.0.0.0 everyone who reaches it may use it."""
    port: int = 7860
    """Port to listen at."""
    device: str = "auto"
    """auto takes a GPU if there is one; else cpu, cuda, cuda:1."""
    tracking_uri: str = ""
    """MLflow server or store of models:/ names; empty: $MLFLOW_TRACKING_URI, else runs/mlflow.db."""


def serve(settings: Page) -> None:
    """Show the page until interrupted. Raises UserError without Gradio, the model, or the port."""
    from cm_ray.page.layout import gradio

    if not 0 < settings.port < 65536:
        raise UserError(f"--port must be 1 to 65535, not {settings.port}.")
    gradio()  # that it is missing is said before a model is fetched
    import uvicorn

    app = application(settings)
    server = uvicorn.Server(
        uvicorn.Config(app, host=settings.host, port=settings.port, log_level="warning", lifespan="on")
    )
    print(f"http://{settings.host}:{settings.port} shows {settings.model}; interrupt it to end.", flush=True)
    try:
        with contextlib.suppress(KeyboardInterrupt):  # the way to end it
            server.run()
    except SystemExit as error:  # uvicorn has said why
        raise UserError(
            f"Could not listen at {settings.host}:{settings.port}: give another --port or --host."
        ) from error


def application(settings: Page) -> Any:
    """Return the page as an ASGI application. Raises UserError when there is no such model."""
    from cm_ray.page.layout import build, gradio

    gr = gradio()
    from fastapi import FastAPI

    folder = locate_model(settings.model, settings.tracking_uri)
    model = load_model(folder, settings.device)
    Image.MAX_IMAGE_PIXELS = MOST_PIXELS // 2  # Pillow refuses twice as many, for Gradio's own reading, too
    page = build(Playground(model), model_facts(model, settings.model, folder, settings.tracking_uri))
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    gr.mount_gradio_app(
        app,
        page,
        path="/",
        server_name=settings.host,
        server_port=settings.port,
        max_file_size=MOST_BYTES,
        ssr_mode=False,
        footer_links=[],
        theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
    )
    app.add_middleware(Limited, most=MOST_BYTES + _ENVELOPE_BYTES)
    return app


class Limited:
    """ASGI middleware: a request with a larger body is answered 413, and read no further."""

    def __init__(self, app: Callable[..., Awaitable[None]], most: int) -> None:
        self.app, self.most = app, most

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, counting what it brings."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if not announced.isdigit() or int(announced) > self.most:
            await _refuse(send)
            return
        await self.app(scope, self._counted(receive), send)

    def _counted(self, receive: Receive) -> Receive:
        """Return `receive`, ending requests that bring more than they announced and than is allowed."""
        total = 0

        async def counted() -> Message:
            nonlocal total
            message = await receive()
            total += len(message.get("body", b""))
            return {"type": "http.disconnect"} if total > self.most else message

        return counted


async def _refuse(send: Send) -> None:
    start = {"type": "http.response.start", "status": 413, "headers": [(b"content-type", b"text/plain")]}
    await send(start)
    text = f"A request may bring {MOST_BYTES >> 20} MiB at most."
    await send({"type": "http.response.body", "body": text.encode()})
