"""Samples of a WebDataset archive: their fields, which of these are the image and the label, and classes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cm_ray.data.interface.columns import ColumnChoice, Columns
from cm_ray.data.interface.names import class_name, in_class_order, printable
from cm_ray.data.layouts.archive_tree import opened
from cm_ray.data.layouts.tar_archive import TarArchive, TarMember
from cm_ray.data.pictures.image_formats import READABLE_ENDINGS
from cm_ray.errors import UserError
from cm_ray.storage.files import parse_json

IMAGE = "image"
"""The field of the files whose ending is that of an image, whatever its format."""
CLASS = "cls"
JSON = "json"
_MOST_LABEL_BYTES = 1 << 16
_INTEGER = re.compile(r"-?[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample: its files by field, and what the ones that may hold a label say."""

    key: str
    fields: Mapping[str, TarMember]
    said: Mapping[str, Any]
    """The text of a field `cls`, and the values of `json`."""


def is_webdataset(archive: TarArchive) -> bool:
    """Return True if an archive has labels, or metadata, beside an image, as files of the same name."""
    with_images = {_key(path)[0] for path in archive.members if _key(path)[1] == IMAGE}
    beside = (_key(path) for path in archive.members)
    return any(field in (CLASS, JSON) and key in with_images for key, field in beside)


def samples_of(archive: TarArchive) -> list[Sample]:
    """Return the samples of an archive in their order. Raises UserError on a damaged or an unclear one."""
    fields: dict[str, dict[str, TarMember]] = {}
    for path, member in archive.members.items():
        key, field = _key(path)
        sample = fields.setdefault(key, {})
        if field in sample:
            raise UserError(
                f"{archive.place(path)} is the second {field} of the sample {printable(key)!r}; give images "
                "of different kinds names such as 7.photo.png and 7.mask.png."
            )
        sample[field] = member
    with opened(archive.archive) as file:
        return [Sample(key, each, _said(file, archive, each)) for key, each in fields.items()]


def _key(path: str) -> tuple[str, str]:
    """Return the sample that a file belongs to, and its field."""
    folder, slash, name = path.rpartition("/")
    stem, _, field = name.partition(".")
    field = field.lower()
    return f"{folder}{slash}{stem}", IMAGE if f".{field}" in READABLE_ENDINGS else field


def _said(file: Any, archive: TarArchive, fields: Mapping[str, TarMember]) -> dict[str, Any]:
    said: dict[str, Any] = {}
    if member := fields.get(JSON):
        place = archive.place(member.name)
        values = parse_json(member.read(file, archive.archive), place, finite=False)
        if not isinstance(values, dict):
            raise UserError(f"{place} must hold names with values, not {type(values).__name__}; correct it.")
        said |= values
    if member := fields.get(CLASS):
        data = member.read(file, archive.archive, _MOST_LABEL_BYTES)
        try:
            said[CLASS] = data.decode().strip()
        except UnicodeDecodeError:
            raise UserError(f"{archive.place(member.name)} is no text; correct it.") from None
    return said


@dataclass(frozen=True, slots=True)
class SampleFields:
    """The fields that are read: that of the image, and the name of the label."""

    image: str
    label: str | None

    @classmethod
    def of(cls, where: str, samples: Sequence[tuple[str, Sample]], wanted: Columns) -> SampleFields:
        """Choose the fields by their names. Raises UserError when the choice is not clear."""
        kinds = {name: _is_image(name) for _, sample in samples for name in sample.fields}
        choice = ColumnChoice(where, "field")
        image = choice.images({name: "images" if kinds[name] else "other" for name in kinds}, wanted.image)
        names = list(dict.fromkeys(name for _, sample in samples for name in sample.said))
        if wanted.label or CLASS not in names:
            return cls(image, choice.labels(names, wanted.label))
        return cls(image, CLASS)

    @property
    def described(self) -> str:
        """The part of the layout's phrase that says what is read."""
        images = "" if self.image == IMAGE else f"with images in {self.image!r} "
        return f"{images}with labels in {self.label!r}" if self.label else f"{images}without labels"

    @property
    def read(self) -> set[str]:
        """The fields of which something is read."""
        return {self.image, *([CLASS if self.label == CLASS else JSON] if self.label else [])}

    def image_of(self, sample: Sample) -> TarMember | None:
        """Return the image of a sample, if it has one."""
        return sample.fields.get(self.image)


def _is_image(field: str) -> bool:
    return field == IMAGE or f".{field.rpartition('.')[2]}" in READABLE_ENDINGS


def numbered(
    fields: SampleFields, samples: Sequence[tuple[str, Sample]]
) -> tuple[list[int | None], tuple[str, ...]]:
    """Return the number of each sample's class, None where it has none, -1 without labels; and class names.

    Labels are numbers, or texts, which name the classes. Raises UserError on a mixture and on other values.
    """
    if fields.label is None:
        return [-1] * len(samples), ()
    values = [_value(archive, sample, fields.label) for archive, sample in samples]
    texts = {value for value in values if isinstance(value, str)}
    if not texts:
        return [value for value in values if not isinstance(value, str)], ()
    if any(isinstance(value, int) for value in values):
        place = next(i for i, value in enumerate(values) if isinstance(value, int))
        raise UserError(
            f"{printable(samples[place][0])} has the number {values[place]} as {fields.label!r} of a sample, "
            f"and others texts such as {printable(sorted(texts)[0])!r}; write all in one way."
        )
    names = in_class_order({class_name(text) for text in texts})
    number = {name: place for place, name in enumerate(names)}
    return [number[class_name(value)] if isinstance(value, str) else None for value in values], tuple(names)


def _value(archive: str, sample: Sample, label: str) -> int | str | None:
    value = sample.said.get(label)
    if isinstance(value, str) and label == CLASS and _INTEGER.fullmatch(value):
        return int(value)
    if value is None or (isinstance(value, int | str) and not isinstance(value, bool)):
        return value if value != "" else None
    raise UserError(
        f"{printable(archive)} has {type(value).__name__} as {label!r} of the sample "
        f"{printable(sample.key)!r}, and labels are numbers or texts; name another by data.label_column."
    )
