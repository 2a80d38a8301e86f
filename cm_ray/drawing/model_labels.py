"""The classes that are asked of a model: the only place where the name of a class becomes its number."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Protocol

from cm_ray.core.guidance import NULL_LABEL
from cm_ray.data.interface.classes import match_classes, names_in_words
from cm_ray.data.interface.described import DescribedImages
from cm_ray.data.interface.names import class_name
from cm_ray.errors import UserError, setting, whole
from cm_ray.networks.has_classes import HasClasses
from cm_ray.sampling.labels import BALANCED, DATA, NULL, LabelDraw

_LABELS = setting("labels", "evaluation.labels")
Label = str | int
"""A class by its name or its number; see `class_number`."""


class LabelledImages(DescribedImages, Protocol):
    """Images that samples are compared with, and their classes."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each class; empty without labels."""

    @property
    def class_counts(self) -> tuple[int, ...]:
        """Number of images of each class; empty without labels."""


def class_number(spec: HasClasses, label: Label, *, untrained: bool | None = None) -> int:
    """Return the number of a class of a conditional model.

    label: the name of the class, or its number as a text or an integer. If any class is called by a number,
    as folders 10, 20 and 30 are, a label is always a name; an integer is then refused if the class of this
    name has another number. untrained: whether a class may be asked for of which the model has seen no image;
    None: the caller has no setting for it. Raises UserError when there is no such class.
    """
    _check_conditional(spec)
    number = _number(spec.class_names, label if isinstance(label, str) else whole("label", label))
    check_trained(spec, number, untrained=untrained)
    return number


def check_trained(spec: HasClasses, number: int, *, untrained: bool | None = None) -> None:
    """Raise UserError when a model has no class of this number, or has seen no image of it.

    untrained: as of `class_number`.
    """
    _check_conditional(spec)
    names, counts = spec.class_names, spec.class_counts
    if not 0 <= number < len(names):
        raise UserError(
            f"The model has the classes 0 to {len(names) - 1}, and no {number}; give another one."
        )
    if counts and not counts[number] and not untrained:
        seen = names_in_words([names[other] for other in trained(spec)])
        advice = "" if untrained is None else f", or set {setting('untrained')}"
        raise UserError(
            f"The model was trained on no image of the class {names[number]!r}; give another class "
            f"({seen}){advice}."
        )


def trained(spec: HasClasses) -> list[int]:
    """Return the numbers of the classes that a model has seen images of; all where that is not known."""
    return [n for n in range(spec.classes) if not spec.class_counts or spec.class_counts[n]]


def class_menu(spec: HasClasses) -> dict[str, int]:
    """Return the number of each class that a model has seen images of, by a text that no other class has."""
    names = spec.class_names
    texts = {n: names[n] if names.count(names[n]) == 1 else f"{names[n]} (number {n})" for n in trained(spec)}
    return {text: number for number, text in texts.items()}


def _check_conditional(spec: HasClasses) -> None:
    if not spec.classes:
        raise UserError(f"The model was trained without classes; leave {setting('label')} out.")


def _number(names: tuple[str, ...], label: Label) -> int:
    text = class_name(str(label))  # a Mac writes the letters of a name in another form
    found = [number for number, name in enumerate(names) if name == text]
    if len(found) > 1:
        numbers = names_in_words([*map(str, found)])
        raise UserError(f"{len(found)} classes are called {text!r}; give the number of one: {numbers}.")
    numeric = any(name.isdecimal() for name in names)
    if found and isinstance(label, int) and found[0] != label:
        raise UserError(
            f"The class called {text!r} has the number {found[0]}, so that the label {label} is not clear; "
            f"give the name as a text, {text!r}."
        )
    if found:
        return found[0]
    if text.isdecimal() and not numeric:
        return int(text)
    raise UserError(f"The model has no class {text!r}: {_hint(text, names)}")


def _hint(name: str, names: tuple[str, ...]) -> str:
    """Return the nearest name as a question, else the names."""
    folded = {each.casefold(): each for each in names}
    near = get_close_matches(name.casefold(), list(folded), n=1)
    return f"did you mean {folded[near[0]]!r}?" if near else f"its classes are {names_in_words(names)}."


def class_text(names: Sequence[str], number: int) -> str:
    """Return the name of a class, with its number where that is another text: ``10 (number 3)``."""
    return names[number] if names[number] == str(number) else f"{names[number]} (number {number})"


def label_draw(
    spec: HasClasses, asked: Label | Sequence[Label] | None, *, untrained: bool | None = None
) -> LabelDraw | None:
    """Return the draw of labels that is asked of a model; None for an unconditional one.

    asked: nothing (None or ""), `BALANCED`, `DATA` or `NULL`, the name of a class, several in a list or with
    commas between them, which are drawn equally often. Nothing and `BALANCED` are `ModelSpec.label_draw`;
    `DATA` draws the classes as often as they are in the training data, and `NULL`, or the label -1, the null
    class. ``data,`` is a class called data. Raises UserError when the model has no such class; untrained: as
    of `class_number`.
    """
    if asked is None or (isinstance(asked, str | list | tuple) and not asked):
        return spec.label_draw
    _check_conditional(spec)
    if asked == BALANCED:
        return spec.label_draw
    if asked == DATA:
        if not spec.class_counts:
            raise UserError(
                f"The model does not know how often each class is in its training data; give {BALANCED} or "
                "the names of classes."
            )
        return LabelDraw(spec.class_counts, DATA)
    if asked in (NULL, NULL_LABEL):
        check_null_class(spec)
        return LabelDraw.null(spec.classes)
    numbers = {class_number(spec, label, untrained=untrained) for label in _listed(spec, asked)}
    chosen = tuple(int(number in numbers) for number in range(spec.classes))
    return LabelDraw(chosen, ",".join(spec.class_names[number] for number in sorted(numbers)))


def check_null_class(spec: HasClasses) -> None:
    """Raise UserError when a model has not learned to do without a class."""
    if not spec.null_class:
        raise UserError(
            "The model has no null class, which is trained by a share of the labels that are left out: train "
            f"one with {setting('network.label_dropout')} 0.1, or give a class."
        )


def _listed(spec: HasClasses, asked: Label | Sequence[Label]) -> Sequence[Label]:
    if not isinstance(asked, str):
        return asked if isinstance(asked, Sequence) else [asked]
    if asked in spec.class_names:  # a name may have commas
        return [asked]
    return [name.strip() for name in asked.split(",") if name.strip()] or [asked]


def scored_labels(
    spec: HasClasses, data: LabelledImages, asked: str, say: Callable[[str], object] | None = None
) -> LabelDraw | None:
    """Return the draw of labels for samples that are compared with images; None for an unconditional model.

    asked: as of `label_draw`, but `DATA` draws the classes as often as they are among the images. Images
    without labels have no such shares, and the classes are drawn equally often. say: gets a sentence about
    the draw. Raises UserError when images are of a class that the model does not know.
    """
    if not spec.classes:
        if asked not in ("", DATA):
            raise UserError(f"The model was trained without classes; leave {_LABELS} {asked} out.")
        return None
    draw = label_draw(spec, asked) if asked not in ("", DATA) else _like(spec, data, say)
    assert draw is not None
    if data.class_names == spec.class_names and draw.weights == _smallest(data.class_counts):
        draw = LabelDraw(draw.weights, DATA)  # all classes are equally frequent
    if say:
        say(draw_in_words(spec, draw))
    return draw


def _smallest(counts: Sequence[int]) -> tuple[int, ...]:
    return tuple(count // math.gcd(*counts) for count in counts)


def _like(spec: HasClasses, data: LabelledImages, say: Callable[[str], object] | None) -> LabelDraw:
    """Return the draw that has the shares of the images' classes."""
    if not data.class_names:
        if say:
            say(f"{data.source} has no labels, whose shares samples could have.")
        return LabelDraw.balanced(spec.classes, spec.class_counts)
    match = match_classes(spec.class_names, data.class_names)
    if match.how == "number" and say:
        say(f"The classes of the model are those of {data.source} by number: only one of them has names.")
    weights = [0] * spec.classes
    for name, number, count in zip(data.class_names, match.numbers, data.class_counts, strict=True):
        if count and (number < 0 or (spec.class_counts and not spec.class_counts[number])):
            raise UserError(
                f"{data.source} has images of the class {name!r}, of which the model has seen none, so that "
                f"samples cannot have its shares; set {_LABELS} to {BALANCED}, or give other data."
            )
        if count:
            weights[number] = count
    return LabelDraw(tuple(weights), DATA)


def draw_in_words(spec: HasClasses, draw: LabelDraw) -> str:
    """Return a sentence that says which classes are drawn, and how often."""
    names, drawn = spec.class_names, draw.drawn
    if draw.is_null:
        return "All samples are of the null class."
    if len(drawn) == 1:
        return f"All samples are of the class {class_text(names, drawn[0])}."
    if draw.text == DATA:
        total = sum(draw.weights)
        shares = [f"{names[number]} {draw.weights[number] / total:.1%}" for number in drawn]
        return f"Labels are drawn as often as in the data: {names_in_words(shares)}."
    which = (
        f"all {len(drawn):,} classes"
        if len(drawn) == len(names)
        else names_in_words([names[i] for i in drawn])
    )
    unseen = [name for name, count in zip(names, spec.class_counts, strict=False) if not count]
    said = f"Labels are drawn of {which}, equally often"
    return f"{said}; the model has seen no image of {names_in_words(unseen)}." if unseen else f"{said}."
