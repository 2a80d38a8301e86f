"""Requests over HTTP and their answers: paths, limits and statuses. Errors are one sentence in JSON."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from torch import Tensor

from cm_ray.cluster.serving.asked import (
    BadJson,
    EditAsked,
    Limits,
    SampleAsked,
    edit_pieces,
    read_asked,
    sample_pieces,
)
from cm_ray.cluster.serving.pieces import Made, Piece
from cm_ray.drawing.model_labels import class_menu
from cm_ray.drawing.pictures import grid_picture, to_nhwc, write_arrays
from cm_ray.editing.tasks import supported_tasks
from cm_ray.errors import UserError
from cm_ray.hosts import host_of, is_known
from cm_ray.networks.model import ModelSpec
from cm_ray.sampling.text import text_of

_POSTED, _GOT = ("/sample", "/edit"), ("/health", "/metrics", "/model")


class Refused(Exception):
    """A request that is not answered: the status of HTTP, and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A model that answers requests."""

    name: str
    """The model, as the user named it."""
    spec: ModelSpec
    limits: Limits
    most: int
    """Images of a piece."""
    hosts: Collection[str]
    """Names that it answers for; see `cm_ray.hosts.known_names`."""
    make: Callable[[Piece], Awaitable[Made]]
    """Makes a piece, together with those of other requests."""
    metrics: Callable[[], str]
    """Returns the metrics as text of Prometheus; may raise OSError."""
    count: Callable[[str, int], None]
    """Counts images: what for, and how many."""

    async def answer(self, request: Request) -> Response:
        """Return the answer to a request; never raises on what a client sends."""
        try:
            return await self._answered(request)
        except Refused as refused:
            return JSONResponse({"error": str(refused)}, refused.status)

    async def _answered(self, request: Request) -> Response:
        if not is_known(host_of(request.headers.raw), self.hosts):
            raise Refused(421, "This server was not started for this host name; host_names can name it.")
        path = request.url.path
        if path not in (*_POSTED, *_GOT):
            raise Refused(404, f"There is no {path}: ask /sample, /edit, /model, /health or /metrics.")
        method = "POST" if path in _POSTED else "GET"
        if request.method not in (method, "HEAD" if method == "GET" else method):
            raise Refused(405, f"{path} is asked by {method}, not by {request.method}.")
        if path == "/health":
            return JSONResponse({"status": "ok", "model": self.name})
        if path == "/model":
            return JSONResponse(self._facts())
        if path == "/metrics":
            return await self._metrics()
        return await self._images(path, await self._body(request))

    async def _body(self, request: Request) -> bytes:
        """Return the body; one that is too large is not read to its end."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":  # which no website can send here without asking first
            raise Refused(415, "A request has the content type application/json.")
        most, parts, total = self.limits.mib << 20, [], 0
        announced = request.headers.get("content-length", "0")
        too_large = Refused(413, f"A request may have at most {self.limits.mib} MiB.")
        if not announced.isdecimal() or int(announced) > most:
            raise too_large
        async for part in request.stream():
            total += len(part)
            if total > most:
                raise too_large
            parts.append(part)
        return b"".join(parts)

    async def _images(self, path: str, body: bytes) -> Response:
        asked, pieces = await asyncio.to_thread(self._read, path, body)
        made = await asyncio.gather(*map(self.make, pieces))
        for each in made:
            if isinstance(each, UserError):
                raise Refused(500, str(each))
        images = torch.cat([each for each in made if isinstance(each, Tensor)])
        self.count("sample" if isinstance(asked, SampleAsked) else asked.task, len(images))
        labels = [piece.labels for piece in pieces if piece.labels is not None]
        return await asyncio.to_thread(
            _file, images, torch.cat(labels) if labels else None, self.spec.class_names, asked.format
        )

    def _read(self, path: str, body: bytes) -> tuple[SampleAsked | EditAsked, list[Piece]]:
        try:
            if path == "/sample":
                sample = read_asked(SampleAsked, body)
                return sample, sample_pieces(sample, self.spec, self.limits, self.most)
            edit = read_asked(EditAsked, body)
            return edit, edit_pieces(edit, self.spec, self.limits, self.most)
        except BadJson as error:
            raise Refused(400, str(error)) from error
        except UserError as error:
            raise Refused(422, str(error)) from error

    async def _metrics(self) -> Response:
        try:
            text = await asyncio.to_thread(self.metrics)
        except OSError as error:
            raise Refused(503, f"Ray's metrics cannot be read now ({error}).") from error
        return Response(text, media_type="text/plain; version=0.0.4")

    def _facts(self) -> dict[str, Any]:
        """Return what clients can ask of the model."""
        c, h, w = self.spec.shape
        return {
            "model": self.name,
            "width": w,
            "height": h,
            "channels": c,
            "classes": list(class_menu(self.spec)) if self.spec.classes else [],
            "sampler": text_of(self.spec.sampler),
            "time_points": {str(len(taus) + 1): list(taus) for taus in self.spec.time_points},
            "tasks": supported_tasks(self.spec.diffusion, self.spec.shape),
            "most_samples": self.limits.samples,
            "most_steps": self.limits.steps,
            "most_mib": self.limits.mib,
        }


def _file(images: Tensor, labels: Tensor | None, names: tuple[str, ...], form: str) -> Response:
    """Return images, uint8 (n, c, h, w), as a file: a picture or a grid of them, or arrays with labels."""
    buffer = io.BytesIO()
    if form == "npz":
        write_arrays(buffer, images, labels, names)
        return Response(buffer.getvalue(), media_type="application/octet-stream")
    _picture(images).save(buffer, format="PNG")
    return Response(buffer.getvalue(), media_type="image/png")


def _picture(images: Tensor) -> Image.Image:
    if len(images) > 1:
        return grid_picture(images, least_pixels=0)
    (pixels,) = to_nhwc(images)
    return Image.fromarray(pixels[:, :, 0] if images.shape[1] == 1 else pixels)
