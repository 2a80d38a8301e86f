"""Columns of Parquet files: which ones are read, and their values as images and labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cm_ray.data.interface.arrow import pa, pc
from cm_ray.data.interface.classes import MOST_CLASSES, names_in_words
from cm_ray.data.interface.columns import ColumnChoice, Columns, Kind
from cm_ray.data.interface.names import class_name, in_class_order, printable
from cm_ray.data.interface.source import LeftOut
from cm_ray.data.interface.splits import SPLIT_KEYS, same_split, split_word
from cm_ray.data.tables.parquet_files import chunks, read_column, reading_parquet
from cm_ray.errors import UserError
from cm_ray.storage.files import parse_json


@dataclass(frozen=True, slots=True)
class ParquetColumns:
    """The columns of Parquet files that are read."""

    image: str
    label: str | None
    """None when the images have no labels."""
    are_texts: bool
    """Labels are texts, not numbers."""
    others: tuple[str, ...]
    """Columns that are not read."""
    texts: tuple[tuple[str, int], ...] = ()
    """Each text and the number of its class, when the labels are texts."""

    @classmethod
    def of(cls, path: Path, schema: pa.Schema, wanted: Columns) -> ParquetColumns:
        """Choose the columns of a file, without the texts. Raises UserError when the choice is not clear."""
        where = printable(str(path))
        typed = {field.name: field.type for field in schema if not pa.types.is_null(field.type)}
        kinds = {name: _kind(kind) for name, kind in typed.items()}
        if {*kinds.values()} == {"other"} and "image" in kinds:
            wanted = replace(wanted, image=wanted.image or "image")  # to say what is wrong with it
        choice = ColumnChoice(where)
        image = choice.images(kinds, wanted.image)
        if kinds[image] == "other":
            raise UserError(
                f"The column {image!r} of {where} is {typed[image]}, not the bytes of image files; encode "
                "them, or name another column by data.image_column."
            )
        names = [name for name in typed if name != image]
        label = choice.labels(names, wanted.label)
        if label and not (pa.types.is_integer(typed[label]) or is_text(typed[label])):
            raise UserError(
                f"The column {label!r} of {where} is {typed[label]}, neither integers nor texts; number the "
                "classes, name another column by data.label_column, or give none there."
            )
        texts = bool(label) and is_text(typed[label])
        return cls(image, label, texts, tuple(name for name in names if name not in (image, label)))

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """The columns that are not read, and why they are not the labels."""
        if not self.others:
            return ()
        why = f"the labels are {self.label!r}" if self.label else "none is called as labels are, or is named"
        return (LeftOut(len(self.others), f"columns ({names_in_words(self.others)})", why),)

    def check(self, path: Path, schema: pa.Schema) -> None:
        """Raise UserError when a file does not have these columns."""
        where = printable(str(path))
        for name in (self.image, self.label):
            if name is not None and name not in schema.names:
                raise UserError(
                    f"{where} has no column {name!r}, which other files of the data have; give them as two "
                    "data sets."
                )
        if _kind(schema.field(self.image).type) == "other":
            raise UserError(
                f"The column {self.image!r} of {where} is {schema.field(self.image).type}, unlike that of "
                "other files; give them as two data sets."
            )
        if self.label and is_text(schema.field(self.label).type) != self.are_texts:
            raise UserError(
                f"The column {self.label!r} holds texts in some files and not in {where}; give them as two "
                "data sets."
            )

    def are_paths(self, path: Path) -> bool:
        """Return True if rows of a file may name image files instead of holding them."""
        with reading_parquet(path) as parquet:
            if _kind(parquet.schema_arrow.field(self.image).type) == "paths":
                return True
            return any(
                not (chunk.statistics and chunk.statistics.has_null_count and not chunk.statistics.null_count)
                for chunk in chunks(parquet, f"{self.image}.bytes")
            )

    def numbers(self, column: pa.Array) -> list[int | None]:
        """Return labels as integers, None for a missing one."""
        if self.texts:
            texts, classes = zip(*self.texts, strict=True)
            place = pc.index_in(as_text(column), pa.array(texts, pa.large_string()))
            column = pa.array(classes, pa.int64()).take(place)
        numbers: list[int | None] = column.to_pylist()
        return numbers


def class_texts(paths: Sequence[Path], label: str) -> tuple[tuple[str, ...], tuple[tuple[str, int], ...]]:
    """Return the names of classes of files whose labels are texts, and each text with its class's number.

    Texts that only differ in how their letters are composed are one class, as everywhere. Raises UserError
    when there are too many to be classes.
    """
    found: set[str] = set()
    for path in paths:
        for column in read_column(path, label):
            found |= set(pc.unique(as_text(column)).drop_null().to_pylist())
        if len(found) > MOST_CLASSES:
            raise UserError(
                f"The column {label!r} of {printable(str(path))} holds more than {MOST_CLASSES:,} different "
                "texts, too many for classes; name another column by data.label_column, or give none there."
            )
    names = in_class_order({class_name(text) for text in found})
    number = {name: place for place, name in enumerate(names)}
    return tuple(names), tuple((text, number[class_name(text)]) for text in sorted(found))


def check_splits(paths: Sequence[Path], columns: ParquetColumns) -> None:
    """Raise UserError when a column that is not read says that the rows belong to several splits."""
    for name in (name for name in columns.others if name.lower() in SPLIT_KEYS):
        words: set[str] = set()
        for path in paths:
            for column in read_column(path, name) if _is_split_column(path, name) else ():
                words |= {split_word(text) for text in pc.unique(as_text(column)).drop_null().to_pylist()}
        known = sorted(words - {""})
        if any(not same_split(word, known[0]) for word in known):
            raise UserError(
                f"{printable(str(paths[0]))} has rows of the splits {', '.join(known)}, as its "
                f"column {name!r} says; write a file for each split, or leave the column out."
            )


def _is_split_column(path: Path, name: str) -> bool:
    with reading_parquet(path) as parquet:
        schema = parquet.schema_arrow
        return name in schema.names and is_text(schema.field(name).type)


def as_text(column: pa.Array) -> pa.Array:
    """Return a column of texts, a dictionary of them, or true and false, as plain texts."""
    return column.cast(pa.large_string())


def _kind(kind: pa.DataType) -> Kind:
    """Return the kind of a column of images."""
    if pa.types.is_struct(kind):
        fields = {field.name: field.type for field in kind}
        if "bytes" in fields and _is_bytes(fields["bytes"]):
            return "images"
        return "paths" if "path" in fields and _is_path(fields["path"]) else "other"
    return "images" if _is_bytes(kind) else "paths" if _is_path(kind) else "other"


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def _is_path(kind: pa.DataType) -> bool:
    return is_text(kind) and not pa.types.is_boolean(kind)


def is_text(kind: pa.DataType) -> bool:
    """Return True if the values of a column are texts, or true and false, which name classes as texts do."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return (
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_boolean(kind)
    )


def hub_class_names(schema: pa.Schema, label: str | None) -> tuple[str, ...]:
    """Return the class names in the metadata that the hub writes into a schema; () if there are none."""
    try:
        said = parse_json((schema.metadata or {})[b"huggingface"], "the metadata", finite=False)
        names: Any = said["info"]["features"][label]["names"]
        if isinstance(names, dict):  # of a card in YAML: names by their numbers as texts
            names = [names[str(number)] for number in range(len(names))]
        return tuple(class_name(str(name)) for name in names)
    except (KeyError, TypeError, UserError):
        return ()
