"""A trained model to sample, edit, export and save with."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cm_ray.api.average_warning import warn_of_average
from cm_ray.api.classifiers import Classifier, classified_by
from cm_ray.api.latents import Classes, bits_of_images, decoded, encoded
from cm_ray.api.pictures import Pictures, mask_of, pixels_of
from cm_ray.api.weak_models import Weak, guided_by
from cm_ray.core.ode import Tolerance
from cm_ray.drawing.batches import batch_on
from cm_ray.drawing.model_labels import Label, class_number, label_draw
from cm_ray.drawing.model_sampler import sampler_of
from cm_ray.drawing.requests import Request, sample_all
from cm_ray.drawing.samples import Samples
from cm_ray.editing.model_edits import edited, interpolation_steps
from cm_ray.editing.tasks import Task, plan_edit
from cm_ray.errors import whole
from cm_ray.evaluation.card import Card, card_files
from cm_ray.evaluation.likelihood import LikelihoodRequest
from cm_ray.networks.arithmetic import Precision
from cm_ray.networks.formats.export import export_model
from cm_ray.networks.model import Model, ModelSpec, from_uint8, save_model, to_uint8
from cm_ray.sampling.samplers import Sampler


class TrainedModel:
    """A consistency model or a diffusion model, ready to sample from.

    model: the network under its preconditioning, in eval mode. name: how messages call it.
    """

    def __init__(self, model: Model, name: str = "the model") -> None:
        self.torch_model, self.name = model, name

    @property
    def spec(self) -> ModelSpec:
        """The specification: network, noise levels, shape of the images, classes."""
        return self.torch_model.spec

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes that can be asked for; empty without classes."""
        return self.spec.class_names if self.spec.classes else ()

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.torch_model.parameters()).device

    def __repr__(self) -> str:
        """Describe the model in a line."""
        c, h, w = self.spec.shape
        kind = "diffusion model" if self.spec.diffusion.denoiser else "consistency model"
        classes = f", {self.spec.classes} classes" if self.spec.classes else ""
        return f"<{kind} {self.name}: {w}x{h}, {'grey' if c == 1 else 'RGB'}{classes}>"

    def to(self, device: str | torch.device) -> TrainedModel:
        """Move the model to a device; return it."""
        self.torch_model.to(device)
        return self

    def sample(
        self,
        n: int = 16,
        *,
        steps: int = 0,
        sampler: str | Sampler = "",
        taus: Sequence[float] = (),
        label: Label | Sequence[Label] | None = None,
        untrained: bool = False,
        seed: int | None = None,
        first: int = 0,
        batch_size: int = 0,
        precision: Precision = "float32",
        guidance: float | None = None,
        weak: Weak = None,
        class_scale: float | None = None,
        classifier: Classifier = None,
    ) -> Samples:
        """Draw n samples, uint8 (n, h, w, c); sample i of a seed is the same whatever n and the batch size.

        steps: network evaluations of a consistency model, or steps of a diffusion model's sampler. sampler:
        an object, such as Heun(steps=18), or its text, multistep:4; by default the model's own. taus:
        descending time points after t_max. label: a class by its name (or number, see `label`), or a list of
        classes; by default all that the model was trained on, equally often, and "data" as often as in its
        training data. batch_size: images per network evaluation; 0: as many as fit into the memory, 256 at
        most. untrained: allow classes of which the model has seen no image. seed: None for a new one. first:
        index of the first sample. precision: of the network. guidance: a scale of the model. weak: a weaker
        model by which it guides; None: the model without the class. classifier: one of noisy images, whose
        gradient times class_scale (1) guides. Raises UserError when these do not fit the model or each other.
        """
        by = {"guidance": guidance, "class_scale": class_scale, "weak": weak, "classifier": classifier}
        request = Request(
            count=whole("n", n, 1),
            seed=secrets.randbits(31) if seed is None else whole("seed", seed),
            sampler=self.sampler(sampler, steps, taus, **by),
            first=whole("first", first, 0),
            unit=batch_on(self.device, whole("batch_size", batch_size, 0), self.spec, precision),
            precision=precision,
        )
        return self._drawn(request, label, untrained=untrained)

    def _drawn(self, request: Request, label: Label | Sequence[Label] | None, *, untrained: bool) -> Samples:
        """Return the samples of a request without labels, of the classes that are asked for."""
        asked = self.torch_model.asked_by(request.sampler)
        labelled = replace(request, labels=label_draw(asked, label, untrained=untrained))
        warn_of_average(self)
        images, labels = sample_all(self.torch_model, labelled)
        return Samples(images, labels, asked.class_names if labels is not None else ())

    def sampler(
        self, sampler: str | Sampler = "", steps: int = 0, taus: Sequence[float] = (), **guidance: Any
    ) -> Sampler:
        """Return the sampler that is asked of the model; arguments, of guidance too, as in `sample`."""
        guidance["weak"] = guided_by(self.torch_model, guidance.pop("weak", None))
        guidance["classifier"] = classified_by(self.torch_model, guidance.pop("classifier", None))
        return sampler_of(self.spec, sampler, whole("steps", steps), _numbers(taus), **guidance)

    def inpaint(self, images: Pictures, mask: Any, **options: Any) -> Samples:
        """Fill the rest of images of which a mask says what is kept; options as in `edit`.

        mask: (h, w) booleans or a black-and-white picture of the images' size, true or white where the image
        is kept.
        """
        return self.edit("inpaint", images, mask=mask, **options)

    def colorize(self, images: Pictures, **options: Any) -> Samples:
        """Colour grey images; options as in `edit`."""
        return self.edit("colorize", images, **options)

    def upscale(self, images: Pictures, factor: int = 2, **options: Any) -> Samples:
        """Add detail to images of a lower resolution; options as in `edit`."""
        return self.edit("upscale", images, factor=factor, **options)

    def stroke(self, images: Pictures, **options: Any) -> Samples:
        """Turn coloured strokes into images; options as in `edit`."""
        return self.edit("stroke", images, **options)

    def denoise(self, images: Pictures, sigma: float, **options: Any) -> Samples:
        """Remove noise of standard deviation sigma (of images in [-1, 1]); options as in `edit`."""
        return self.edit("denoise", images, sigma=sigma, **options)

    def edit(
        self,
        task: Task,
        images: Pictures,
        *,
        mask: Any = None,
        steps: int = 0,
        taus: Sequence[float] = (),
        factor: int = 0,
        sigma: float = 0.0,
        sampler: str | Sampler = "",
        label: Label | None = None,
        seed: int = 0,
    ) -> Samples:
        """Edit images zero-shot.  Song et al. 2023, Algorithm 4; by diffusion models, Song et al. 2021, I.2.

        images: cropped and resized to the model's shape; those of upscale may be smaller by the factor. mask:
        of inpaint. steps, taus: network evaluations, or the times of each. factor: of upscale. sigma: of
        denoise. sampler: of a diffusion model, pc:100 or langevin:60, say. label: a class by its name or
        number, else drawn. Returns uint8 (n, h, w, c). Raises UserError when these do not fit the task or the
        model.
        """
        settings: dict[str, Any] = {"steps": whole("steps", steps), "factor": whole("factor", factor)}
        settings |= {"taus": _numbers(taus), "sigma": sigma, "sampler": sampler}
        edit = plan_edit(task, self.spec.diffusion, self.spec.shape, **settings)
        warn_of_average(self)
        pictures, pixels = pixels_of(images, self.spec, factor=edit.factor)
        kept = mask_of(mask, task, pictures, self.spec)
        indices = torch.arange(len(pixels), device=self.device)
        labels = self._labels(label, len(pixels))
        result = edited(
            self.torch_model,
            edit,
            from_uint8(pixels).to(self.device),
            indices=indices,
            seed=seed,
            mask=None if kept is None else kept.to(self.device),
            labels=labels,
        )
        return Samples(to_uint8(result), labels, self.class_names)

    def interpolate(
        self,
        n: int = 9,
        *,
        seeds: tuple[int, int] = (0, 1),
        steps: int = 0,
        label: Label | None = None,
        index: int = 0,
    ) -> Samples:
        """Return n images on the way between sample `index` of two seeds, both ends included.

        label: of a conditional model, its class on the whole way. Raises UserError when it is missing.
        """
        n = whole("n", n, 1)
        warn_of_average(self)
        alpha = torch.linspace(0, 1, n, device=self.device)
        *_, last = interpolation_steps(
            self.torch_model,
            sampler_of(self.spec, steps=whole("steps", steps)),
            alpha,
            indices=torch.full((n,), index, device=self.device),
            seeds=seeds,
            labels=self._labels(label, n),
        )
        return Samples(to_uint8(last.x), self._labels(label, n), self.class_names)

    def bits_per_dim(
        self,
        images: Pictures,
        label: Classes = None,
        *,
        probes: int = 1,
        rtol: float = 1e-5,
        seed: int = 0,
        batch_size: int = 64,
        resize: bool = False,
    ) -> NDArray[np.float64]:
        """Return the exact likelihood of each image under a diffusion model, in bits per dimension (n,).

        Song et al. 2021 (Score SDE), section 4.3, with uniform dequantisation. label: of a model with
        classes, the class of all images or a list of one for each. probes: random vectors of the estimate of
        the trace, 0 for the exact one. rtol: tolerance of the solver. resize: crop and resize images of
        other sizes. Raises UserError for a consistency model, and on what does not fit the model.
        """
        _, pixels = pixels_of(images, self.spec, resize=resize)
        request = LikelihoodRequest(
            seed=whole("seed", seed),
            probes=whole("probes", probes),
            tolerance=Tolerance(rtol=rtol, atol=rtol),
            batch=whole("batch_size", batch_size, 1),
        )
        return bits_of_images(self.torch_model, self.name, pixels, label, request)

    def encode(self, images: Pictures, label: Classes = None, *, resize: bool = False) -> Tensor:
        """Return the noise that a diffusion model's ODE makes each image of, float32 (n, c, h, w).

        label, resize: as in `bits_per_dim`. `decode` returns the images to about a grey level.
        """
        _, pixels = pixels_of(images, self.spec, resize=resize)
        return encoded(self.torch_model, self.name, pixels, label)

    def decode(self, latents: Tensor, label: Classes = None) -> Samples:
        """Return the images of latents (n, c, h, w): of `encode`, of a mixture of them, or of new noise."""
        images, labels = decoded(self.torch_model, self.name, latents, label)
        return Samples(images, labels, self.class_names)

    def export(self, format: str, path: str | Path, *, grid: int = 40) -> Path:
        """Write the model for other tools; return the path.

        format: diffusers (a directory), safetensors, torch, onnx, or model (a folder as of a run). grid:
        boundaries of the grid of diffusers' time points. Raises UserError when there is something at the path
        already, or the format cannot hold the model. A folder gets a model card, README.md.
        """
        warn_of_average(self)
        also = card_files(self._card(), format)
        return export_model(self.torch_model, format, Path(path), grid=grid, also=also)

    def save(self, path: str | Path) -> Path:
        """Write the model's folder, which `cm_ray.load` reads; return the path."""
        save_model(Path(path), self.spec, self.torch_model.network.state_dict())
        return Path(path)

    def label(self, label: Label | None) -> int | None:
        """Return the number of a class given by its name, or by its number; None for None.

        Where classes are called by numbers, as the folders 10, 20 and 30 are, "10" is the class of this name,
        and the integer 10 is refused, unless it is the number as well. Raises UserError when the model has no
        such class, or was trained on no image of it.
        """
        return None if label is None else class_number(self.spec, label)

    def _card(self) -> Card:
        parameters = sum(parameter.numel() for parameter in self.torch_model.parameters())
        return Card(name=Path(self.name).name, spec=self.spec, parameters=parameters)

    def _labels(self, label: Label | None, n: int) -> Tensor | None:
        number = self.label(label)
        return None if number is None else torch.full((n,), number, device=self.device)


def _numbers(taus: Any) -> tuple[Any, ...]:
    """Return one time point, or any sequence, array or tensor of them, as a tuple."""
    return tuple(np.atleast_1d(taus).tolist())
