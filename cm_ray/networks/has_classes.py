"""The common part of models and of classifiers of noisy images: classes that can be asked for."""

from __future__ import annotations

from typing import Protocol

from cm_ray.core.types import Images, Labels, Times
from cm_ray.sampling.labels import LabelDraw


class HasClasses(Protocol):
    """The specification of a model or a classifier, with classes that can be asked for."""

    @property
    def classes(self) -> int:
        """Number of classes; 0 for none."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each class."""

    @property
    def class_counts(self) -> tuple[int, ...]:
        """Number of images of each class that it was trained on; empty where it is not known."""

    @property
    def null_class(self) -> bool:
        """True if it has learned to do without a class."""

    @property
    def label_draw(self) -> LabelDraw | None:
        """The draw of labels where none are asked for."""


class Classifies(Protocol):
    """A classifier of noisy images; see `cm_ray.networks.noise_classifier`."""

    @property
    def spec(self) -> HasClasses:
        """Its classes."""

    def slope(self, x_t: Images, t: Times, labels: Labels, /) -> Images:
        """Return the gradient of ln p(y | x_t)."""
