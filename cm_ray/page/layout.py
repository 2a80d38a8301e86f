"""The layout of the page, and the functions that its buttons call."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from typing import Any

from cm_ray.drawing.model_labels import class_menu
from cm_ray.editing.replacement import STROKE_TIMES
from cm_ray.editing.tasks import Task, factors, supported_tasks
from cm_ray.errors import UserError
from cm_ray.extras import needs
from cm_ray.page.playground import CanvasContent, EditForm, Frame, Playground

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("GRADIO_RUN_HISTORY", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

_KEPT_S = 3600
"""Seconds after which uploads and results are removed."""
ANY_CLASS = "drawn at random"
"""Entry of the class menu that draws a class at random."""
HINTS: dict[str, str] = {
    "inpaint": "Paint over the part that is to be generated; the rest stays unchanged.",
    "colorize": "The luminance stays unchanged; the colours are generated.",
    "upscale": "The image is reduced by the factor; the means of its patches stay unchanged.",
    "stroke": "Paint on the image; the result follows the strokes. A larger first time allows more changes.",
    "denoise": "Noise of this level is added and removed again, in one network evaluation.",
}
"""A hint for each task of editing."""


def gradio() -> Any:
    """Return the module Gradio. Raises UserError, with the command to install it, when it is missing."""
    needs("gradio", extra="app")
    import gradio as module

    return module


def build(play: Playground, card: str) -> Any:
    """Return the page as Gradio Blocks; card: the description of the model, in Markdown."""
    gr = gradio()
    with gr.Blocks(title="cm_ray", analytics_enabled=False, delete_cache=(_KEPT_S, _KEPT_S)) as page:
        gr.Markdown("# cm_ray")
        with gr.Tab("Sample"):
            _sample_tab(gr, play)
        with gr.Tab("Edit"):
            _edit_tab(gr, play)
        with gr.Tab("Between"):
            _between_tab(gr, play)
        with gr.Tab("Model"):
            gr.Markdown(card, elem_id="facts")
    page.queue(default_concurrency_limit=2, max_size=32, api_open=False)
    return page


def _sample_tab(gr: Any, play: Playground) -> None:
    with gr.Row():
        count = gr.Number(16, label="Images", precision=0, elem_id="sample-count")
        steps = gr.Number(0, label="Steps (0: the model's own)", precision=0, elem_id="sample-steps")
        seed = gr.Number(0, label="Seed", precision=0)
        label = _classes(gr, play)
    button = gr.Button("Sample", variant="primary", elem_id="sample-button")
    picture, text = _result(gr, "sample")

    def sample(count: int, steps: int, seed: int, label: str) -> Iterator[Frame]:
        yield from play.sample(count, steps, seed, _label(play, label))

    button.click(_shown(gr, sample), [count, steps, seed, label], [picture, text])


def _edit_tab(gr: Any, play: Playground) -> None:
    given = gr.State(None)
    with gr.Row():
        with gr.Column():
            upload, sample_seed, take, canvas = _image_controls(gr)
        with gr.Column():
            fields, button = _edit_controls(gr, play)
    picture, text = _result(gr, "edit")

    def edit(given: Any, canvas: Any, task: Task, label: str, *numbers: Any) -> Iterator[Frame]:
        yield from play.edit(_edit_form(task, _label(play, label), *numbers), given, _painted(canvas))

    def opened(data: bytes | None) -> tuple[Any, Any]:
        pixels = None if data is None else play.opened(data)
        return pixels, None if pixels is None else play.canvas(pixels)

    def taken(seed: int, name: str) -> tuple[Any, Any, str]:
        pixels, label = play.one_sample(seed, _label(play, name))
        texts = {number: text for text, number in class_menu(play.spec).items()}
        return pixels, play.canvas(pixels), name if label is None else texts[label]

    label = fields[1]
    upload.change(_refusing(gr, opened), upload, [given, canvas])
    take.click(_refusing(gr, taken), [sample_seed, label], [given, canvas, label])
    button.click(_shown(gr, edit), [given, canvas, *fields], [picture, text])


def _image_controls(gr: Any) -> tuple[Any, Any, Any, Any]:
    """Add the controls of the image: return the upload, the sample's seed, its button and the canvas."""
    upload = gr.File(label="An image file", type="binary", elem_id="edit-upload", height=100)
    with gr.Row():
        sample_seed = gr.Number(0, label="Seed of the sample", precision=0)
        take = gr.Button("Take a sample", elem_id="edit-take")
    canvas = gr.ImageEditor(
        label="Image",
        type="pil",
        format="png",
        sources=(),
        transforms=(),
        layers=gr.LayerOptions(disabled=True, allow_additional_layers=False),
        brush=gr.Brush(default_size=40, colors=["#ff3030", "#ffffff", "#000000", "#808080"]),
        elem_id="edit-canvas",
    )
    return upload, sample_seed, take, canvas


def _edit_controls(gr: Any, play: Playground) -> tuple[list[Any], Any]:
    """Add the settings of an edit: return their fields, in the order of `_edit_form`, and the button."""
    spec = play.spec
    tasks, known = supported_tasks(spec.diffusion, spec.shape), factors(spec.shape)
    task = gr.Radio(tasks, value=tasks[0], label="Task", elem_id="edit-task")
    hint = gr.Markdown(HINTS[tasks[0]])
    label = _classes(gr, play)
    with gr.Row():
        seed = gr.Number(0, label="Seed", precision=0)
        samples = gr.Number(4, label="Results", precision=0)
        steps = gr.Number(0, label="Steps (0: 39)", precision=0, elem_id="edit-steps")
    with gr.Row():
        strokes = ", ".join(map(str, STROKE_TIMES))
        taus = gr.Textbox(strokes, label="Times of stroke")
        factor = gr.Dropdown(known, value=known[0] if known else None, label="Factor of upscale")
        sigma = gr.Number(0.5, label="Level of denoise")
    task.change(HINTS.__getitem__, task, hint)
    return [task, label, seed, samples, steps, taus, factor, sigma], gr.Button(
        "Edit", variant="primary", elem_id="edit-button"
    )


def _between_tab(gr: Any, play: Playground) -> None:
    with gr.Row():
        seed = gr.Number(0, label="From seed", precision=0)
        other = gr.Number(1, label="To seed", precision=0)
        frames = gr.Number(9, label="Images on the way", precision=0)
        ways = gr.Number(4, label="Ways", precision=0)
        label = _classes(gr, play)
    button = gr.Button("Go", variant="primary", elem_id="between-button")
    picture, text = _result(gr, "between")

    def between(seed: int, other: int, frames: int, ways: int, label: str) -> Iterator[Frame]:
        yield from play.between(seed, other, frames, ways, _label(play, label))

    button.click(_shown(gr, between), [seed, other, frames, ways, label], [picture, text])


def _result(gr: Any, name: str) -> tuple[Any, Any]:
    """Return the component that shows a picture, and the one that shows the text of its step."""
    text = gr.Markdown("", elem_id=f"{name}-text")
    picture = gr.Image(
        show_label=False,
        type="pil",
        format="png",
        interactive=False,
        buttons=["download", "fullscreen"],
        elem_id=f"{name}-picture",
    )
    return picture, text


def _classes(gr: Any, play: Playground) -> Any:
    names = [ANY_CLASS, *class_menu(play.spec)]
    return gr.Dropdown(names, value=ANY_CLASS, label="Class", visible=bool(play.spec.classes))


def _label(play: Playground, name: str) -> int | None:
    """Return the number of a class from its entry in the menu. Raises UserError when there is none."""
    if name == ANY_CLASS:
        return None
    menu = class_menu(play.spec)
    if name not in menu:
        raise UserError(f"There is no class {name!r}; choose one from the menu.")
    return menu[name]


def _edit_form(
    task: Task, label: int | None, seed: int, samples: int, steps: int, taus: str, factor: int, sigma: float
) -> EditForm:
    """Return the settings of an edit, without those that belong to other tasks."""
    try:
        times = tuple(float(tau) for tau in taus.replace(",", " ").split())
    except ValueError as error:
        raise UserError(
            f"The times {taus!r} are not numbers; write {STROKE_TIMES[0]}, for example."
        ) from error
    return EditForm(
        task=task,
        label=label,
        seed=seed,
        samples=1 if task == "denoise" else samples,
        steps=0 if task in ("stroke", "denoise") else steps,
        taus=times if task == "stroke" else (),
        factor=(factor or 0) if task == "upscale" else 0,
        sigma=(sigma or 0.0) if task == "denoise" else 0.0,
    )


def _painted(canvas: Any) -> CanvasContent:
    if not canvas:
        return CanvasContent(None, ())
    return CanvasContent(canvas["composite"], tuple(canvas["layers"]))


def _shown(gr: Any, function: Callable[..., Iterator[Frame]]) -> Callable[..., Iterator[tuple[Any, str]]]:
    """Return a generator function for Gradio; a UserError becomes a message on the page."""

    @functools.wraps(function)
    def wrapped(*values: Any) -> Iterator[tuple[Any, str]]:
        try:
            yield from function(*values)
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from error

    return wrapped


def _refusing(gr: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function for Gradio; a UserError becomes a message on the page."""

    @functools.wraps(function)
    def wrapped(*values: Any) -> Any:
        try:
            return function(*values)
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from error

    return wrapped
