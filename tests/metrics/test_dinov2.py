"""DINOv2 against timm's implementation of the published networks, with random weights."""

import functools
import hashlib
import http.server
import threading

import pytest
import torch
import torch.nn.functional as F

from cm_ray.errors import UserError
from cm_ray.metrics.extractors import dinov2
from cm_ray.metrics.extractors.dinov2 import DINOv2Extractor, Shape, VisionTransformer
from cm_ray.metrics.extractors.extractor import Classifier, statistics_of
from cm_ray.metrics.extractors.published_weights import DINOV2, PublishedWeights
from cm_ray.metrics.extractors.registry import open_extractor
from cm_ray.networks.vision import torchvision
from tests.absent import installed

torchvision()  # must be mended before timm imports it
timm = installed("timm", reason="timm is not installed")

SMALL = Shape(width=48, depth=3, heads=4)
MEAN, STD = (torch.tensor(x).view(3, 1, 1) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def drawn(network, seed=0):
    """Draw all weights, also those that begin at one or zero, so that none of them can be left out."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * (0.5 if weight.ndim == 1 else 0.2))
    return network.eval().requires_grad_(False)


def images(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


@pytest.fixture(scope="module")
def network():
    return drawn(VisionTransformer(SMALL))


@pytest.fixture
def extractor(network):
    return DINOv2Extractor(network, "0" * 64, "dinov2-small")


@pytest.fixture
def oracle(network):
    """timm's network with the same weights, and the position embedding of 16 x 16 patches."""
    model = timm.models.vision_transformer.VisionTransformer(
        img_size=224, patch_size=14, embed_dim=SMALL.width, depth=SMALL.depth, num_heads=SMALL.heads,
        init_values=1e-5, num_classes=0,
    )  # fmt: skip
    model.load_state_dict({**network.state_dict(), "pos_embed": network.positions()})
    return model.eval()


@pytest.mark.parametrize(
    ("shape", "theirs", "millions"),
    [("vits14", "small", 22.1), ("vitb14", "base", 86.6), ("vitl14", "large", 304.4)],
)
def test_names_and_sizes_are_those_of_the_published_networks(shape, theirs, millions):
    with torch.device("meta"):
        ours = VisionTransformer(dinov2.SHAPES[shape])
        published = timm.create_model(f"vit_{theirs}_patch14_dinov2", pretrained=False)
    sizes = {name: weight.shape for name, weight in published.state_dict().items()}
    assert {name: weight.shape for name, weight in ours.state_dict().items()} == sizes
    assert published.blocks[0].attn.num_heads == ours.blocks[0].attn.heads
    assert sum(p.numel() for p in ours.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)


def test_features_are_those_of_the_published_network(network, oracle):
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    expected = oracle(x)
    assert expected.std() > 0.1
    torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(32, 32), (64, 48), (300, 260)])
def test_images_are_prepared_as_in_edm2s_code(size, extractor, oracle):
    """Its default is PyTorch's antialiased bicubic resizing, and ImageNet's mean and deviation."""
    x = images(2, 3, *size)
    resized = F.interpolate(x.float(), (224, 224), mode="bicubic", antialias=True)
    expected = oracle((resized / 255 - MEAN) / STD)
    torch.testing.assert_close(extractor.features(x), expected, rtol=1e-3, atol=1e-3)


def test_positions_are_interpolated_as_in_the_published_code(network):
    """A cubic kernel with a = -3/4 at (i + 1/2) · 37 / 16.1 - 1/2; indices beyond the border are its own."""

    def kernel(x):
        x = abs(x)
        near = 1.25 * x**3 - 2.25 * x**2 + 1
        return near if x <= 1 else -0.75 * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0

    rows = torch.zeros(16, 37, dtype=torch.float64)
    for i in range(16):
        at = (i + 0.5) * 37 / 16.1 - 0.5
        for near in range(int(at) - 1, int(at) + 3):
            rows[i, min(max(near, 0), 36)] += kernel(at - near)
    learned = network.pos_embed.double()
    expected = torch.einsum("ia,jb,abw->ijw", rows, rows, learned[0, 1:].view(37, 37, -1))
    found = network.positions()
    assert torch.equal(found[:, 0], network.pos_embed[:, 0])
    torch.testing.assert_close(found[0, 1:].double(), expected.reshape(256, -1), rtol=0, atol=1e-5)


def test_batches_change_nothing_and_grey_is_a_colour(extractor, monkeypatch):
    x = images(5, 3, 20, 20)
    features = extractor.features(x)
    assert features.shape == (5, extractor.dim) == (5, 48)
    monkeypatch.setattr(dinov2, "_BATCH", 2)
    torch.testing.assert_close(extractor.features(x), features, rtol=1e-4, atol=1e-4)
    grey = x[:, :1]
    assert torch.equal(extractor.features(grey), extractor.features(grey.expand(-1, 3, -1, -1)))
    assert extractor.features(x[:0]).shape == (0, 48)
    assert statistics_of(extractor, x).n == 5
    assert not isinstance(extractor, Classifier)


def test_other_images_are_refused(extractor):
    with pytest.raises(UserError, match=r"dinov2-small needs uint8 images \(b, 1 or 3, h, w\), not float32"):
        extractor.features(torch.zeros(2, 3, 32, 32))


@pytest.fixture
def small_file(network, tmp_path, monkeypatch):
    """A file as the publisher has it, with the token of hidden patches, in place of ViT-S/14's."""
    monkeypatch.setenv("CM_RAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CM_RAY_DINOV2_WEIGHTS", raising=False)
    monkeypatch.setitem(dinov2.SHAPES, "vits14", SMALL)
    folder = tmp_path / "published"
    folder.mkdir()
    file = folder / "dinov2_vits14_pretrain.pth"
    torch.save({**network.state_dict(), "mask_token": torch.zeros(1, 48)}, file)
    return file


def publish(file, monkeypatch, address="http://127.0.0.1:9"):
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    weights = PublishedWeights(url=f"{address}/{file.name}", sha256=sha256, variable="CM_RAY_DINOV2_WEIGHTS")
    monkeypatch.setitem(DINOV2, "vits14", weights)
    return sha256


def test_published_weights_are_downloaded_and_give_the_same_features(small_file, extractor, monkeypatch):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    handler = functools.partial(Quiet, directory=small_file.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        sha256 = publish(small_file, monkeypatch, f"http://127.0.0.1:{server.server_port}")
        opened = open_extractor("dinov2-vits14")
        server.shutdown()
    assert (opened.name, opened.weights_sha256, opened.dim) == ("dinov2-vits14", sha256, 48)
    x = images(2, 3, 32, 32)
    assert torch.equal(opened.features(x), extractor.features(x))
    monkeypatch.setenv("CM_RAY_DINOV2_WEIGHTS", str(small_file.parent))
    assert torch.equal(open_extractor("dinov2-vits14").features(x), extractor.features(x))


@pytest.mark.parametrize("shape", DINOV2)
def test_addresses_are_the_publishers_and_other_files_are_refused(shape, tmp_path):
    weights = DINOV2[shape]
    assert weights.url == (
        f"https://dl.fbaipublicfiles.com/dinov2/dinov2_{shape}/dinov2_{shape}_pretrain.pth"
    )
    assert len(bytes.fromhex(weights.sha256)) == 32
    file = tmp_path / weights.file_name
    file.write_bytes(b"something else")
    with pytest.raises(UserError, match=f"download https://dl.fbaipublicfiles.com/.*{weights.sha256}"):
        open_extractor(f"dinov2-{shape}", weights=file)


def test_weights_that_lack_a_name_are_not_taken(small_file, network, monkeypatch):
    state = dict(network.state_dict())
    del state["blocks.1.ls2.gamma"]
    torch.save(state, small_file)
    publish(small_file, monkeypatch)
    with pytest.raises(RuntimeError, match="blocks\\.1\\.ls2\\.gamma"):
        open_extractor("dinov2-vits14", weights=small_file)
