"""Data sets of PyTorch and of Ray as batches of pixels. Neither Ray nor torchvision is imported."""

from __future__ import annotations

import contextlib
import itertools
import math
import numbers
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from cm_ray.data.interface.columns import ColumnChoice, Kind
from cm_ray.data.interface.names import class_name
from cm_ray.data.interface.source import Batch, ReadOptions
from cm_ray.data.pictures.images import Decoded, batches, decode, fitted_pixels, picture_pixels
from cm_ray.data.pictures.pixel_arrays import Scale, as_array, channels_last, check_dtype
from cm_ray.data.tables.parquet_columns import hub_class_names
from cm_ray.errors import UserError

_ROWS_AT_ONCE = 256
_RAY = "the Ray data set"
_CHOICE = ColumnChoice(_RAY, advice="drop or rename columns")


class _Raw(NamedTuple):
    """An image in any of the forms that data sets hold."""

    name: str
    """Name in messages."""
    value: Any
    """A PIL image, an array, a tensor, the bytes of an image file, or a dict that holds them as "bytes"."""


Item = tuple[str, _Raw, int]
"""Name in messages, image, label."""


def is_ray_dataset(data: object) -> bool:
    """Return True for a `ray.data.Dataset`, by the module of its class, so that Ray is not imported."""
    return any(base.__module__.split(".")[:2] == ["ray", "data"] for base in type(data).__mro__)


def is_map_style(data: object) -> bool:
    """Return True for a sequence of items, as a map-style `torch.utils.data.Dataset` is."""
    return hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, Mapping)


@dataclass(frozen=True, slots=True)
class TorchImages:
    """A map-style data set of PyTorch, or a list: items are images or (image, label)."""

    dataset: Any
    name: str

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names in the attribute `classes` of the data set, or of the one that it is a subset of."""
        dataset = self.dataset
        while not hasattr(dataset, "classes") and hasattr(dataset, "dataset"):
            dataset = dataset.dataset
        names = getattr(dataset, "classes", ())
        if not isinstance(names, list | tuple):
            return ()
        texts = (", ".join(map(str, name)) if isinstance(name, tuple) else str(name) for name in names)
        return tuple(map(class_name, texts))

    def read(self, options: ReadOptions) -> Iterator[Batch]:
        """Take every item once, in order; random transforms are drawn once. See `Part.read`."""
        return _read(self._items(), self.name, options)

    def _items(self) -> Iterator[Item]:
        for index in range(len(self.dataset)):
            name = f"item {index} of {self.name}"
            item = self.dataset[index]
            image, label = item, None
            if isinstance(item, tuple | list):
                if len(item) not in (1, 2):
                    raise UserError(
                        f"There are {len(item)} parts in {name}; give an image, or (image, label)."
                    )
                image, label = item[0], item[1] if len(item) == 2 else None
            yield name, _Raw(name, image), _label(label, name)


@dataclass(frozen=True, slots=True)
class RayImages:
    """A `ray.data.Dataset` with columns of images and, mostly, of labels; see `columns` for their names."""

    dataset: Any
    class_names: tuple[str, ...]
    name: str = "ray"

    @classmethod
    def of(cls, dataset: Any) -> RayImages:
        """Take the names of classes from the schema of Parquet files as the Hugging Face hub writes them.

        They are empty for other data, and once the data set has been executed: Ray then forgets them.
        """
        schema = getattr(dataset.schema(fetch_if_missing=False), "base_schema", None)
        if not isinstance(schema, pa.Schema):
            return cls(dataset, ())
        return cls(dataset, hub_class_names(schema, _CHOICE.labels(schema.names)))

    def read(self, options: ReadOptions) -> Iterator[Batch]:
        """Take every row once, in the order of the data set, some at a time. See `Part.read`."""
        return _read(self._items(), _RAY, options)

    def _items(self) -> Iterator[Item]:
        with self._in_order():
            place = 0
            for table in self.dataset.iter_batches(batch_size=_ROWS_AT_ONCE, batch_format="numpy"):
                image = _CHOICE.images(_kinds(table))
                label = _CHOICE.labels([name for name in table if name != image])
                for offset, value in enumerate(table[image]):
                    name = f"row {place + offset} of {_RAY}"
                    number = -1 if label is None else _label(table[label][offset], name)
                    yield name, _Raw(name, value), number
                place += len(table[image])

    @contextlib.contextmanager
    def _in_order(self) -> Iterator[None]:
        """Keep the order of rows, which Ray Data gives up by default where tasks end in another one."""
        options = self.dataset.context.execution_options
        before, options.preserve_order = options.preserve_order, True
        try:
            yield
        finally:
            options.preserve_order = before


def _kinds(table: Mapping[str, Any]) -> dict[str, Kind]:
    """Return the kinds of columns by their first values; one called image has images, if perhaps odd ones."""
    first = {name: values[0] if len(values) else None for name, values in table.items()}
    images = (bytes, Mapping, np.ndarray, torch.Tensor, Image.Image)
    named = ("image", "img")
    return {
        name: "images" if name in named or isinstance(value, images) else "other"
        for name, value in first.items()
    }


def _label(value: Any, name: str) -> int:
    """Return an item's label, -1 for None. Raises UserError when it is not an integer."""
    if value is None:
        return -1
    if isinstance(value, torch.Tensor | np.ndarray) and math.prod(value.shape) == 1:
        value = value.item()
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Integral):
        raise UserError(
            f"The label of {name} is of type {type(value).__name__}, not an integer; number the classes "
            "0, 1, 2 and so on."
        )
    return int(value)


def _read(items: Iterator[Item], name: str, options: ReadOptions) -> Iterator[Batch]:
    """Yield the items as batches; the first ones decide the range of floating-point pixels."""
    first = list(itertools.islice(items, _ROWS_AT_ONCE))
    arrays = [as_array(raw.value) for _, raw, _ in first if isinstance(raw.value, torch.Tensor | np.ndarray)]
    floats = [array for array in arrays if array.dtype.kind == "f" and array.size]
    scale = None
    if floats:
        scale = Scale.of(
            float(np.min([array.min() for array in floats])),
            float(np.max([array.max() for array in floats])),
            name,
        )

    def decoded(raw: _Raw, options: ReadOptions) -> Decoded:
        return _decoded(raw, scale, options)

    return batches(itertools.chain(first, items), options, decoded)


def _decoded(raw: _Raw, scale: Scale | None, options: ReadOptions) -> Decoded:
    """Return an item's image as uint8 (h, w, c). Raises BadImageError, and UserError on other types."""
    value = raw.value
    if isinstance(value, Mapping) and isinstance(value.get("bytes"), bytes):
        value = value["bytes"]
    if isinstance(value, bytes):
        return decode(value, options)
    if isinstance(value, Image.Image):
        return picture_pixels(value, options)
    if not isinstance(value, torch.Tensor | np.ndarray):
        raise UserError(
            f"The image of {raw.name} is of type {type(value).__name__}; give PIL images, tensors or arrays."
        )
    array = as_array(value)
    check_dtype(array, raw.name)
    array = channels_last(array, 3, raw.name)
    if array.dtype != np.uint8:
        if scale is None:
            raise UserError(
                f"The pixels of {raw.name} are {array.dtype}, unlike those of the first images; give all as "
                "uint8."
            )
        array = scale.pixels(array)
    return Decoded(fitted_pixels(array, options))
