"""LPIPS as a distance (Zhang et al. 2018), computed with the lpips package and checked weights."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from cm_ray.core.types import Images, Times, check_same_shape
from cm_ray.errors import UserError, setting
from cm_ray.extras import needs
from cm_ray.networks.arithmetic import Precision, arithmetic
from cm_ray.networks.vision import torchvision
from cm_ray.storage.files import cache_root, download, sha256_of
from cm_ray.storage.tensor_files import check_finite, read_tensor_file

_TRUNKS = {  # public address, SHA-256 (torchvision prints its first eight digits in the file's name)
    "vgg": (
        "https://download.pytorch.org/models/vgg16-397923af.pth",
        "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    ),
    "alex": (
        "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
    ),
    "squeeze": (
        "https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth",
        "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
    ),
}
_SMALLEST = {"vgg": 16, "alex": 31, "squeeze": 17}  # pixels; smaller images vanish in the pooling layers


class TrunkSettings(Protocol):
    """The settings of LPIPS; see `cm_ray.networks.lpips_distance.LPIPS`."""

    @property
    def net(self) -> str:
        """The trunk: vgg, alex or squeeze."""

    @property
    def size(self) -> int:
        """Smaller images are resized to this many pixels; 0 keeps them."""

    @property
    def pooling(self) -> str:
        """Pooling between the slices: max or average."""

    @property
    def weights(self) -> str:
        """File of the trunk's weights; empty: the cache, else its public address."""


class PerceptualDistance(nn.Module):
    """Learned perceptual distance of images in [-1, 1]; grey ones are repeated to three channels.

    size: smaller images are resized to this many pixels, bilinearly (OpenAI's code: 224); 0 keeps their size.
    smallest: the smallest images, in pixels, that the trunk can process. precision: arithmetic of the trunk;
    its features are normalised, compared and averaged in float32.

    The images go through the trunk in two passes, so that the one without gradient, the regression target,
    keeps no activations and has no backward pass, as one pass over both would have. The gradient is 0 where a
    and b are equal and where all features are 0, although the features are divided by their norm: every
    slice of a trunk ends with a ReLU, whose gradient is 0 at 0.
    """

    def __init__(
        self, metric: nn.Module, size: int, smallest: int = 1, precision: Precision = "float32"
    ) -> None:
        super().__init__()
        self.metric = metric.eval().requires_grad_(False)
        self.metric.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.size, self.smallest, self.precision = size, smallest, precision

    def forward(self, a: Images, b: Images) -> Times:
        """Return the distances (b,).

        Raises ValueError on unequal shapes, and UserError on images that are too small for the trunk.
        """
        check_same_shape(a, b)
        return self.of_features(self.features(a), self.features(b))

    def of_features(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> Times:
        """Return the distances (b,) of images with these features."""
        metric: Any = self.metric
        slices = zip(metric.lins, a, b, strict=True)
        return torch.stack([_compared(linear, *features) for linear, *features in slices]).sum(0)

    def features(self, x: Images) -> Sequence[Tensor]:
        """Return the outputs of the trunk's slices, (b, c, h, w) each."""
        with arithmetic(self.precision, x.device):
            metric: Any = self.metric
            features: Sequence[Tensor] = metric.net(metric.scaling_layer(self._prepare(x)))
        return features

    def _prepare(self, x: Images) -> Images:
        if x.shape[1] == 1:
            x = x.expand(-1, 3, -1, -1)
        if x.shape[-1] < self.size:
            x = functional.interpolate(x, size=(self.size, self.size), mode="bilinear")
        if min(x.shape[-2:]) < self.smallest:
            raise UserError(
                f"LPIPS needs {self.smallest} pixels, but the images have {min(x.shape[-2:])}; set "
                f"{setting('distance.size')} to at least {self.smallest}, or choose another "
                f"{setting('distance.net')}."
            )
        return x


def _compared(linear: nn.Module, a: Tensor, b: Tensor) -> Times:
    """Return the share of a slice in the distance (b,), of its features (b, c, h, w); Zhang et al., Eq. 1."""
    shares: Times = linear((_of_length_1(a) - _of_length_1(b)).square()).mean((1, 2, 3))
    return shares


def _of_length_1(features: Tensor) -> Tensor:
    features = features.float()
    return features / (features.square().sum(1, keepdim=True).sqrt() + 1e-10)


def perceptual_distance(
    settings: TrunkSettings, *, precision: Precision = "float32", random_trunk: bool = False
) -> PerceptualDistance:
    """Build the LPIPS distance, whose trunk computes in `precision`.

    random_trunk: leave the trunk's weights random; for tests of the plumbing only.
    Raises UserError when the trunk's weights are not to be had or are others.
    """
    torchvision()
    needs("lpips", extra="scores")
    import lpips

    with warnings.catch_warnings():  # lpips uses deprecated arguments of torchvision
        warnings.simplefilter("ignore", UserWarning)
        metric = lpips.LPIPS(net=settings.net, pnet_rand=True, verbose=False)
    if not random_trunk:
        _load_trunk(metric.net, settings)
    if settings.pooling == "average":
        _average_pooling(metric.net)
    return PerceptualDistance(metric, settings.size, _SMALLEST[settings.net], precision)


def _average_pooling(trunk: nn.Module) -> None:
    """Replace max pooling by average pooling over the same windows, as OpenAI's code does by piq's option."""
    for module in list(trunk.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.MaxPool2d):
                average = nn.AvgPool2d(child.kernel_size, child.stride, child.padding, child.ceil_mode)
                setattr(module, name, average)


def _load_trunk(trunk: nn.Module, settings: TrunkSettings) -> None:
    """Load the published weights into the trunk, which names the layer ``features.N`` by its number N."""
    file = _weights_file(settings)
    state, _ = read_tensor_file(file)
    check_finite(state, file)
    renamed = {
        name: state["features." + name.split(".", 1)[1]]  # slice1.0.weight <- features.0.weight
        for name in trunk.state_dict()
    }
    trunk.load_state_dict(renamed)


def _weights_file(settings: TrunkSettings) -> Path:
    url, sha256 = _TRUNKS[settings.net]
    if not settings.weights:
        return download(url, cache_root() / "weights" / url.rsplit("/", 1)[1], sha256=sha256)
    path = Path(settings.weights)
    if not path.is_file() or sha256_of(path) != sha256:
        raise UserError(
            f"{setting('distance.weights')} {path} is not the file from {url} with SHA-256 {sha256}; "
            "download that file."
        )
    return path
