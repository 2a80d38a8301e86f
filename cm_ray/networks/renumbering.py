"""Networks whose classes get other numbers; what they compute for a class stays the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from cm_ray.errors import UserError
from cm_ray.networks.architectures import EDM2, GroupNormUNet
from cm_ray.networks.families import family_of
from cm_ray.networks.model import Model, ModelSpec


def renumbered(model: Model, numbers: Sequence[int], class_names: tuple[str, ...]) -> Model:
    """Return a model that does for class i, to the bit, what the given model does for class numbers[i].

    numbers: a permutation of the classes. class_names: names of the classes in the new order. The rows of the
    label embedding are moved; edm2 normalises those of all classes together, so that its answers are the same
    to rounding. Raises UserError for a network of one's own, whose weights are not known.
    """
    spec = model.spec
    if list(numbers) == list(range(spec.classes)):
        return _with_weights(replace(spec, class_names=class_names), model, {})
    if not isinstance(spec.network, EDM2 | GroupNormUNet):
        raise UserError(
            "The classes of a network of your own cannot be renumbered; number those of the data as it does: "
            f"{', '.join(spec.class_names)}."
        )
    counts = tuple(spec.class_counts[number] for number in numbers) if spec.class_counts else ()
    name, axis = _embedding(spec.network)
    embedding = model.network.state_dict()[name].index_select(axis, torch.tensor(numbers))
    return _with_weights(
        replace(spec, class_names=class_names, class_counts=counts), model, {name: embedding}
    )


def _embedding(network: EDM2 | GroupNormUNet) -> tuple[str, int]:
    """Return the name of the label embedding, and the axis along which it has the classes."""
    if isinstance(network, EDM2):
        return "emb_label.weight", 1
    return "label_emb.weight", 1 if family_of(network).labels_first else 0


def _with_weights(spec: ModelSpec, model: Model, changed: dict[str, torch.Tensor]) -> Model:
    """Return a model of a specification with the weights of another one, some of them changed."""
    made = Model(spec)
    made.network.load_state_dict({**model.network.state_dict(), **changed})
    return made.eval()
