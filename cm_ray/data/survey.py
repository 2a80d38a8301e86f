"""Surveys of data sets before their images are read: commands say them, and shards keep them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from cm_ray.data.interface.classes import classes_in_words, classes_of
from cm_ray.data.interface.outline import Outline
from cm_ray.data.interface.source import LeftOut, ReadOptions
from cm_ray.errors import UserError, plain, setting, spoken

_MOST_SIZES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """A data set as it was understood: its layout, and what its labels and some of its images are."""

    source: str
    """Name of the data set."""
    layout: str
    """Phrase for how the images lie there."""
    split: str = ""
    """The split that is read; empty where there are none."""
    count: int
    """Number of images, unreadable ones included."""
    class_names: tuple[str, ...] = ()
    class_counts: tuple[int, ...] = ()
    """Number of images of each class; both are empty without labels."""
    looked_at: int
    """Number of images whose headers were read; they are spread over the data set."""
    sizes: Mapping[str, int]
    """Number of those images of each size, as 64x48 (width x height), the most frequent first."""
    colours: Mapping[str, int]
    """Number of those images that are grey and that are RGB."""
    transparent: int = 0
    """Number of those images with pixels that may be transparent."""
    damaged: tuple[str, ...] = ()
    """The images among them that cannot be read, and why."""
    left_out: tuple[LeftOut, ...] = ()
    """Files, folders and columns that are there and are not read."""
    made_of: tuple[str, ...] = ()
    """The lines of the survey of the source that shards were made of."""
    size: int = 0
    """Side in pixels that images are cropped and resized to; 0: as they are."""

    @classmethod
    def of(
        cls,
        source: str,
        layout: str,
        outline: Outline,
        options: ReadOptions,
        *,
        class_names: tuple[str, ...] = (),
        split: str = "",
        left_out: tuple[LeftOut, ...] = (),
    ) -> Survey:
        """Return the survey of an outline. Raises UserError on no images and on labels that do not fit."""
        if not outline.count:
            raise UserError(f"{source} holds no image; give other data.")
        names, counts = classes_of(source, class_names, outline.labels)
        kinds = Counter("grey" if head.grey else "RGB" for head in outline.heads)
        return cls(
            source=source,
            layout=layout,
            split=split,
            count=outline.count,
            class_names=names,
            class_counts=counts,
            looked_at=outline.looked_at,
            sizes=dict(Counter(head.size for head in outline.heads).most_common()),
            colours=dict(kinds.most_common()),
            transparent=sum(head.alpha for head in outline.heads),
            damaged=outline.damaged,
            left_out=left_out,
            size=options.size,
        )

    def lines(self) -> list[str]:
        """Return sentences for people: the data, its images, its classes, what is left out."""
        split = f", split {self.split}" if self.split else ""
        lines = [f"{self.source}: {self.layout}{split}", f"{_images(self.count)}{self._kinds()}"]
        lines.append(classes_in_words(self.class_names, self.class_counts))
        lines += [f"left out: {_left(each)}" for each in self.left_out]
        lines += [f"cannot be read: {each}" for each in self.damaged[:_MOST_SIZES]]
        if len(self.damaged) > _MOST_SIZES:
            lines.append(f"cannot be read: {len(self.damaged) - _MOST_SIZES} more")
        if self.size:
            lines.append(f"cropped and resized to {self.size}x{self.size}")
        elif len(self.sizes) > 1:
            lines.append(f"of several sizes: set {setting('size', 'data.size')}")
        lines += [
            f"made of {line.strip()}" if not number else line for number, line in enumerate(self.made_of)
        ]
        return [lines[0], *(f"  {line}" for line in lines[1:])]

    def __str__(self) -> str:
        """Return the sentences as a text."""
        return "\n".join(map(plain, spoken("\n".join(self.lines())).splitlines()))

    def _kinds(self) -> str:
        """Return a phrase for the sizes and colours of the images that were looked at."""
        if not self.sizes:
            return ""
        sizes = _counted(self.sizes)
        more = f" and {len(sizes) - _MOST_SIZES:,} other sizes" if len(sizes) > _MOST_SIZES else ""
        kinds = [*sizes[:_MOST_SIZES], *_counted(self.colours)]
        if more:
            kinds.insert(_MOST_SIZES, more.strip())
        if self.transparent:
            kinds.append(f"{self.transparent:,} with transparent pixels")
        some = "" if self.looked_at == self.count else f"; {self.looked_at:,} of them were looked at:"
        return f"{some or ' of'} {', '.join(kinds)}"


def _counted(numbers: Mapping[str, int]) -> list[str]:
    """Return the names with their numbers; a single name stands alone."""
    return [name if len(numbers) == 1 else f"{name} ({count:,})" for name, count in numbers.items()]


def _left(left: LeftOut) -> str:
    kind, space, rest = left.what.partition(" ")
    noun = kind.removesuffix("s") if left.count == 1 else kind
    return f"{left.count:,} {noun}{space}{rest} ({left.why})"


def _images(count: int) -> str:
    return f"{count:,} images" if count != 1 else "1 image"
