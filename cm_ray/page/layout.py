"""The layout of the page, and the functions that its buttons call."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from cm_ray.errors import UserError
from cm_ray.extras import needs
from cm_ray.page.callbacks import refusing, shown
from cm_ray.page.controls import classes, result, steps
from cm_ray.page.edit_tab import EditInputs, edit_tab
from cm_ray.page.menus import ANY_CLASS, PIXELS, SMOOTH, class_of, entry_of, steps_menu, steps_of
from cm_ray.page.model_card import ModelCard
from cm_ray.page.playground import Frame, Playground

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("GRADIO_RUN_HISTORY", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

_KEPT_S = 3600
"""Seconds after which uploads and results are removed."""
_EDIT = "edit"
"""Id of the tab that edits."""


def gradio() -> Any:
    """Return the module Gradio. Raises UserError, with the command to install it, when it is missing."""
    needs("gradio", extra="app")
    import gradio as module

    return module


def build(play: Playground, card: ModelCard) -> Any:
    """Return the page as Gradio Blocks; card: the description of the model."""
    gr, menu = gradio(), steps_menu(play.spec, card.scores)
    title = f"{card.name} · cm_ray"
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(_KEPT_S, _KEPT_S)) as page:
        with gr.Row():
            gr.Markdown(f"## {card.name}\n{card.facts}", elem_id="name")
            ways = [PIXELS, SMOOTH]
            view = gr.Radio(ways, value=PIXELS, label="Small images", elem_id="view", scale=0, min_width=280)
        with gr.Tabs() as tabs:
            with gr.Tab("Sample"):
                _sample_tab(gr, play, view, menu)
            with gr.Tab("Seeds"):
                gallery, found = _seeds_tab(gr, play, view, menu)
            with gr.Tab("Edit", id=_EDIT):
                edited = edit_tab(gr, play, view)
            with gr.Tab("Between"):
                _between_tab(gr, play, view)
            with gr.Tab("Model"):
                gr.Markdown(card.text, elem_id="facts")
        _edit_when_chosen(gr, play, gallery, found, edited, tabs)
    page.queue(default_concurrency_limit=2, max_size=32, api_open=False)
    return page


def _sample_tab(gr: Any, play: Playground, view: Any, menu: dict[str, int]) -> None:
    with gr.Row():
        count = gr.Number(16, label="Images", precision=0, elem_id="sample-count")
        seed = gr.Number(0, label="Seed", precision=0)
        label = classes(gr, play)
    choice, other = steps(gr, "sample", menu)
    button = gr.Button("Sample", variant="primary", elem_id="sample-button")
    picture, text = result(gr, "sample")

    def sample(count: int, choice: str, other: int, seed: int, label: str, view: str) -> Iterator[Frame]:
        chosen, number = steps_of(menu, choice, other), class_of(play.spec, label)
        yield from play.sample(count, chosen, seed, number, smooth=view == SMOOTH)

    button.click(shown(gr, sample), [count, choice, other, seed, label, view], [picture, text])


def _seeds_tab(gr: Any, play: Playground, view: Any, menu: dict[str, int]) -> tuple[Any, Any]:
    """Add the gallery of seeds; return it, and the state with its images and classes."""
    with gr.Row():
        first = gr.Number(0, label="First seed", precision=0, elem_id="seeds-first")
        count = gr.Number(24, label="Seeds", precision=0, elem_id="seeds-count")
        label = classes(gr, play)
    choice, other = steps(gr, "seeds", menu)
    with gr.Row():
        button = gr.Button("Show", variant="primary", elem_id="seeds-button")
        following = gr.Button("Next seeds", elem_id="seeds-next")
    gr.Markdown("Each image has its seed and its class; click on one to edit it.")
    gallery = gr.Gallery(
        show_label=False,
        columns=8,
        height="auto",
        object_fit="contain",
        format="png",
        allow_preview=False,
        fit_columns=False,
        interactive=False,
        elem_id="seeds-gallery",
    )
    found = gr.State([])

    def seeds(
        first: int, count: int, choice: str, other: int, label: str, view: str
    ) -> tuple[list[Any], list[Any]]:
        chosen, number = steps_of(menu, choice, other), class_of(play.spec, label)
        samples = play.seeds(first, count, chosen, number)
        return [play.shown_alone(each, smooth=view == SMOOTH) for each in samples], samples

    fields, outputs = [first, count, choice, other, label, view], [gallery, found]
    button.click(refusing(gr, seeds), fields, outputs)
    following.click(
        lambda first, count: (first or 0) + (count or 0), [first, count], first, api_visibility="private"
    ).then(refusing(gr, seeds), fields, outputs, api_visibility="private")
    return gallery, found


def _edit_when_chosen(
    gr: Any, play: Playground, gallery: Any, found: Any, edited: EditInputs, tabs: Any
) -> None:
    """Take the image of the gallery that is clicked on into the tab that edits, and go there."""

    def chosen(samples: list[Any], event: Any) -> tuple[Any, ...]:
        if event.index not in range(len(samples)):
            raise UserError("There is no such image; show the seeds again.")
        sample = samples[event.index]
        label = ANY_CLASS if sample.label is None else entry_of(play.spec, sample.label)
        return sample.pixels, play.canvas(sample.pixels), label, gr.update(selected=_EDIT)

    chosen.__annotations__["event"] = gr.SelectData  # by which Gradio knows what to give
    gallery.select(
        refusing(gr, chosen),
        found,
        [edited.given, edited.canvas, edited.label, tabs],
        api_visibility="private",
    )


def _between_tab(gr: Any, play: Playground, view: Any) -> None:
    with gr.Row():
        seed = gr.Number(0, label="From seed", precision=0)
        other = gr.Number(1, label="To seed", precision=0)
        frames = gr.Number(9, label="Images on the way", precision=0)
        ways = gr.Number(4, label="Ways", precision=0)
        label = classes(gr, play)
    button = gr.Button("Go", variant="primary", elem_id="between-button")
    picture, text = result(gr, "between")

    def between(seed: int, other: int, frames: int, ways: int, label: str, view: str) -> Iterator[Frame]:
        number = class_of(play.spec, label)
        yield from play.between(seed, other, frames, ways, number, smooth=view == SMOOTH)

    button.click(shown(gr, between), [seed, other, frames, ways, label, view], [picture, text])
