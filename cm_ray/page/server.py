"""Serve the page: its address, its files, and their end."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from PIL import Image

from cm_ray.command_line.settings.app import PageSettings
from cm_ray.data.pictures.uploads import MOST_BYTES, MOST_PIXELS
from cm_ray.hosts import bound
from cm_ray.networks.formats.reading import load_model
from cm_ray.networks.initial_weights import warn_of_initial_weights
from cm_ray.page.model_card import model_card
from cm_ray.page.playground import Playground
from cm_ray.page.requests import ENVELOPE_BYTES, KnownHosts, RequestLimit
from cm_ray.tracking.locate import locate_model


def serve(settings: PageSettings) -> None:
    """Serve the page until interrupted. Raises UserError when Gradio, model or port is not available."""
    with bound(settings.host, settings.port) as listening:  # before the model is read
        app = application(settings)
        import uvicorn

        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on"))
        at = f"[{settings.host}]" if ":" in settings.host else settings.host
        print(f"http://{at}:{settings.port} shows {settings.model}; press Ctrl+C to stop.", flush=True)
        with contextlib.suppress(KeyboardInterrupt):  # Ctrl+C stops the server
            server.run([listening])


def application(settings: PageSettings) -> Any:
    """Return the page as an ASGI application. Raises UserError when there is no such model."""
    from cm_ray.page.layout import build, gradio

    files = tempfile.TemporaryDirectory(prefix="cm_ray-page-", ignore_cleanup_errors=True)
    os.environ["GRADIO_TEMP_DIR"] = files.name  # Gradio reads this when it is imported
    gr = gradio()
    from fastapi import FastAPI

    folder = locate_model(settings.model, settings.tracking_uri)
    model = load_model(folder, settings.device)
    warn_of_initial_weights(model.spec, settings.model)
    card = model_card(model, settings.model, folder, settings.tracking_uri)
    Image.MAX_IMAGE_PIXELS = MOST_PIXELS // 2  # Pillow refuses twice as many, also where Gradio reads
    page = build(Playground(model), card)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=_removing(files))
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
    _keep_to_uploads(gr, page, Path(files.name).resolve())
    app.add_middleware(RequestLimit, most=MOST_BYTES + ENVELOPE_BYTES)
    app.add_middleware(KnownHosts, names=(settings.host, *settings.host_names))
    return app


def _removing(
    files: tempfile.TemporaryDirectory[str],
) -> Callable[[Any], contextlib.AbstractAsyncContextManager[None]]:
    """Return a lifespan of the application that removes the folder of uploads and results at the end."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        try:
            yield
        finally:
            files.cleanup()

    return lifespan


def _keep_to_uploads(gr: Any, page: Any, folder: Path) -> None:
    """Refuse requests that name a file of the server that was not uploaded, or an address to download from.

    Gradio refuses such files in pages that it launched itself, and a mounted page does not count as launched.
    It downloads from any address outside of its own network.
    """
    page.has_launched = page.is_running = True

    async def kept(path: str | Path | None) -> str | None:
        if path is not None and not Path(path).resolve().is_relative_to(folder):
            raise gr.Error("Only uploaded files can be opened.", print_exception=False)
        return None if path is None else str(path)

    for block in page.blocks.values():
        block.async_move_resource_to_block_cache = kept
