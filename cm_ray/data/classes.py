"""Names of the classes that labels need."""

from __future__ import annotations

from cm_ray.errors import UserError

MOST_CLASSES = 100_000


def names_of_classes(source: str, names: tuple[str, ...], low: int, high: int) -> tuple[str, ...]:
    """Return the name of each class: `names`, or the numbers 0 to `high` if the source has no names.

    source: name of the data in messages. low, high: least and greatest label. Returns () when no image has a
    label (both are -1). Raises UserError when only some images have a label, or a label has no name.
    """
    if low == high == -1:
        return ()
    if low < 0:
        raise UserError(
            f"{source} has images without a label (or with the label {low}) among others with one; "
            "label all of them."
        )
    if high >= MOST_CLASSES:
        raise UserError(
            f"{source} has the label {high}, and there may be at most {MOST_CLASSES:,} classes; "
            "number them 0, 1, 2 and so on."
        )
    known = names or tuple(str(number) for number in range(high + 1))
    if high >= len(known):
        raise UserError(
            f"{source} has the label {high} but names only {len(known)} classes; correct the labels or "
            "the names."
        )
    return known
