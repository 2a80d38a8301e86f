"""The extractors `dinov2-vitl14`, `dinov2-vitb14` and `dinov2-vits14`: DINOv2 without registers.

Oquab et al. 2023 published the networks; Stein et al. 2023 found that Fréchet distances of the features of
ViT-L/14 agree with what people see, and EDM2 (Karras et al. 2024) publishes them as FD-DINOv2. Images are
prepared as EDM2's code does it by default: Pillow's antialiased bicubic resizing to 224 x 224 in float32,
without rounding or clipping. dgm-eval (Stein et al.) rounds the resized pixels to 8 bits. The names of the
modules are those of the published files.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cm_ray.metrics.extractors.inference import IMAGENET_MEAN, IMAGENET_STD, check_images, plain_float32
from cm_ray.metrics.extractors.published_weights import DINOV2
from cm_ray.metrics.extractors.resizing import pillow_bicubic

SIZE = 224
"""Height and width of the images that the network gets, in pixels."""
_PATCH, _TRAINED, _BATCH = 14, 37, 64  # pixels of a patch, patches per side in training, images per pass
_OFFSET = 0.1  # the published code adds it to the number of patches when it resizes the position embedding
_EPS = 1e-6


@dataclass(frozen=True, slots=True)
class Shape:
    """Width of the tokens, number of blocks, and heads of their attention."""

    width: int
    depth: int
    heads: int


SHAPES = {
    "vits14": Shape(width=384, depth=12, heads=6),
    "vitb14": Shape(width=768, depth=12, heads=12),
    "vitl14": Shape(width=1024, depth=24, heads=16),
}
"""The published networks of one kind; ViT-g/14 has other feed-forward layers (SwiGLU)."""


class Patches(nn.Module):
    """Split images (b, 3, h, w) into patches of 14 x 14 pixels, one linear token (width) for each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, _PATCH, _PATCH)

    def forward(self, x: Tensor) -> Tensor:
        """Return (b, patches, width), row by row."""
        return self.proj(x).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Self-attention with several heads, whose queries, keys and values come from one linear map."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens (b, n, width)."""
        b, n, width = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, width))


class FeedForward(nn.Module):
    """Two linear maps with GELU between them, four times as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens (b, n, width)."""
        return self.fc2(F.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    """Multiply each channel by a learned number, `gamma` (width) (Touvron et al. 2021)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens (b, n, width)."""
        return x * self.gamma


class Block(nn.Module):
    """A block of a vision transformer: attention and feed-forward layer, normalised before each."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, _EPS), nn.LayerNorm(width, _EPS)
        self.attn, self.mlp = Attention(width, heads), FeedForward(width)
        self.ls1, self.ls2 = LayerScale(width), LayerScale(width)

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens (b, n, width)."""
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class VisionTransformer(nn.Module):
    """DINOv2 of one shape: normalised images (b, 3, 224, 224) to features (b, width)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.patch_embed = Patches(shape.width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, shape.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + _TRAINED**2, shape.width))
        self.blocks = nn.Sequential(*(Block(shape.width, shape.heads) for _ in range(shape.depth)))
        self.norm = nn.LayerNorm(shape.width, _EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Return the class token (b, width) after the last normalisation."""
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), self.patch_embed(x)], 1) + self.positions()
        return self.norm(self.blocks(x)[:, 0])

    def positions(self) -> Tensor:
        """Return the position embedding (1, 1 + 16 · 16, width) of images of 224 pixels.

        The learned one is that of 37 x 37 patches. It is interpolated as the published code does it: by
        bicubic interpolation with the scale (16 + 0.1) / 37, without antialiasing.
        """
        first, patches = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        scale = (SIZE // _PATCH + _OFFSET) / _TRAINED
        grid = patches.view(1, _TRAINED, _TRAINED, -1).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, scale_factor=(scale, scale), mode="bicubic")
        return torch.cat([first, grid.flatten(2).transpose(1, 2)], 1)


@dataclass(frozen=True, slots=True)
class DINOv2Extractor:
    """Extractor of features (b, dim): the class token. It is an `Extractor`, and no `Classifier`.

    With ViT-L/14 and 50,000 samples, the Fréchet distance of these features is EDM2's FD-DINOv2.
    """

    network: VisionTransformer
    weights_sha256: str
    name: str
    preprocess: str = field(
        default=f"{SIZE}x{SIZE} Pillow bicubic with antialiasing, not rounded, ImageNet mean and deviation",
        init=False,
    )

    @classmethod
    def open(
        cls, shape: str, device: torch.device | str = "cpu", *, weights: Path | str = ""
    ) -> DINOv2Extractor:
        """Return the extractor of a shape, one of `SHAPES`, with the published weights.

        weights: the file, or the folder that holds it; empty searches $CM_RAY_DINOV2_WEIGHTS and the cache.
        See `PublishedWeights.find` for the search and its errors.
        """
        published = DINOV2[shape]
        state = published.load(weights)
        state.pop("mask_token", None)  # it stood for hidden patches in training
        with torch.device("meta"):
            network = VisionTransformer(SHAPES[shape])
        network.load_state_dict(state, assign=True)
        network = network.to(device).eval().requires_grad_(False)
        return cls(network, published.sha256, f"dinov2-{shape}")

    @property
    def dim(self) -> int:
        """Number of features: the width of the network."""
        return self.network.cls_token.shape[-1]

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Return the features (b, dim), float32, of uint8 images (b, 3 or 1, h, w), colour or grey.

        Raises UserError on images of another shape or type.
        """
        check_images(images, self.name, channels=(1, 3))
        batches = [self._features_of(batch) for batch in images.split(_BATCH)]
        return torch.cat(batches) if batches else torch.zeros(0, self.dim)

    def _features_of(self, images: Tensor) -> Tensor:
        token = self.network.cls_token
        rows, columns = (pillow_bicubic(side, SIZE).to(token.device) for side in images.shape[2:])
        mean, std = (
            torch.tensor(each, device=token.device).view(3, 1, 1) for each in (IMAGENET_MEAN, IMAGENET_STD)
        )
        with plain_float32(token):
            x = rows @ (images.to(token.device).float() @ columns.T)
            return self.network((x.expand(-1, 3, -1, -1) / 255 - mean) / std)
