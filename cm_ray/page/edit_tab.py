"""The tab of the page that edits an image: its controls, and what they mean."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cm_ray.editing.replacement import STROKE_TIMES
from cm_ray.editing.tasks import Task, factors, supported_tasks
from cm_ray.errors import UserError
from cm_ray.page.callbacks import refusing, shown
from cm_ray.page.controls import classes, result
from cm_ray.page.menus import SMOOTH, class_of, entry_of
from cm_ray.page.playground import CanvasContent, EditForm, Frame, Playground

HINTS: dict[str, str] = {
    "inpaint": "Paint over the part that is to be generated; the rest stays unchanged.",
    "colorize": "The luminance stays unchanged; the colours are generated.",
    "upscale": "The image is reduced by the factor; the means of its patches stay unchanged.",
    "stroke": "Paint on the image; the result follows the strokes. A larger first time allows more changes.",
    "denoise": "Noise of this level is added and removed again, in one network evaluation.",
}
"""A hint for each task of editing."""


@dataclass(frozen=True, slots=True)
class EditInputs:
    """The components that take an image that is to be edited."""

    given: Any
    """State: the image, uint8 (h, w, c)."""
    canvas: Any
    label: Any


def edit_tab(gr: Any, play: Playground, view: Any) -> EditInputs:
    """Add the controls and the result of editing; return those that take the image."""
    given = gr.State(None)
    with gr.Row():
        with gr.Column():
            upload, sample_seed, take, canvas = _image_controls(gr)
        with gr.Column():
            fields, button = _edit_controls(gr, play)
    picture, text = result(gr, "edit")

    def edit(given: Any, canvas: Any, view: str, task: Task, label: str, *numbers: Any) -> Iterator[Frame]:
        form = edit_form(task, class_of(play.spec, label), *numbers)
        yield from play.edit(form, given, _painted(canvas), smooth=view == SMOOTH)

    def opened(data: bytes | None) -> tuple[Any, Any]:
        pixels = None if data is None else play.opened(data)
        return pixels, None if pixels is None else play.canvas(pixels)

    def taken(seed: int, name: str) -> tuple[Any, Any, str]:
        pixels, label = play.one_sample(seed, class_of(play.spec, name))
        return pixels, play.canvas(pixels), name if label is None else entry_of(play.spec, label)

    label = fields[1]
    upload.change(refusing(gr, opened), upload, [given, canvas])
    take.click(refusing(gr, taken), [sample_seed, label], [given, canvas, label])
    button.click(shown(gr, edit), [given, canvas, view, *fields], [picture, text])
    return EditInputs(given, canvas, label)


def _image_controls(gr: Any) -> tuple[Any, Any, Any, Any]:
    """Add the controls of the image: return the upload, the sample's seed, its button and the canvas."""
    upload = gr.File(label="An image file", type="binary", elem_id="edit-upload", height=140)
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
    """Add the settings of an edit: return their fields, in the order of `edit_form`, and the button."""
    spec = play.spec
    tasks, known = supported_tasks(spec.diffusion, spec.shape), factors(spec.shape)
    task = gr.Radio(tasks, value=tasks[0], label="Task", elem_id="edit-task")
    hint = gr.Markdown(HINTS[tasks[0]])
    label = classes(gr, play)
    with gr.Row():
        seed = gr.Number(0, label="Seed", precision=0)
        samples = gr.Number(4, label="Results", precision=0)
        default = 200 if spec.diffusion.denoiser else 39
        steps = gr.Number(0, label=f"Steps (0: {default})", precision=0, elem_id="edit-steps")
    with gr.Row():
        strokes = ", ".join(map(str, STROKE_TIMES))
        taus = gr.Textbox(strokes, label="Times of stroke")
        factor = gr.Dropdown(known, value=known[0] if known else None, label="Factor of upscale")
        sigma = gr.Number(0.5, label="Level of denoise")
    task.change(HINTS.__getitem__, task, hint)
    return [task, label, seed, samples, steps, taus, factor, sigma], gr.Button(
        "Edit", variant="primary", elem_id="edit-button"
    )


def edit_form(
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
