"""Controls that several tabs of the page have."""

from __future__ import annotations

from typing import Any

from cm_ray.drawing.model_labels import class_menu
from cm_ray.page.menus import ANY_CLASS, OTHER
from cm_ray.page.playground import Playground


def classes(gr: Any, play: Playground) -> Any:
    """Return the menu of classes by name; it is not shown for a model without."""
    names = [ANY_CLASS, *class_menu(play.spec)]
    return gr.Dropdown(names, value=ANY_CLASS, label="Class", visible=bool(play.spec.classes))


def steps(gr: Any, name: str, menu: dict[str, int]) -> tuple[Any, Any]:
    """Return the choice of a number of steps, with their scores, and the field of another number."""
    entries = [*menu, OTHER]
    choice = gr.Radio(entries, value=entries[0], label="Steps", elem_id=f"{name}-steps")
    other = gr.Number(
        3, label="Other number of steps", precision=0, visible=False, elem_id=f"{name}-other-steps"
    )
    choice.change(lambda entry: gr.update(visible=entry == OTHER), choice, other, api_visibility="private")
    return choice, other


def result(gr: Any, name: str) -> tuple[Any, Any]:
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
