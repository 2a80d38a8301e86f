"""Images of any height and width that the levels divide, from the training to the page."""

import numpy as np
import pytest
import torch
from PIL import Image

import cm_ray as cm
from cm_ray.core.diffusion import Diffusion
from cm_ray.errors import UserError
from cm_ray.networks.architectures import ADM
from cm_ray.networks.formats.export import export_model
from cm_ray.networks.model import Model, ModelSpec
from cm_ray.page.playground import CanvasContent, EditForm, Playground
from cm_ray.recipes.automatic import DataFacts, networks_for
from cm_ray.recipes.own_images import recipe_for_images
from cm_ray.settings.tree import flatten, override

HEIGHT, WIDTH = 16, 24
FAMILIES = ["adm", "ddpm++", "ncsn++", "edm2", "refinenet"]
TINY = ADM(
    channels=8, channel_mult=(1, 2), blocks=1, attention_resolutions=(8,), norm_groups=4, head_channels=8
)
SETTINGS = {
    "network.channels": 8,
    "network.channel_mult": (1, 2),
    "network.blocks": 1,
    "network.attention_resolutions": (8,),
    "network.norm_groups": 4,
    "network.head_channels": 8,
}
"""Settings of the networks that have these."""
EVERYWHERE = {
    "batch_size": 8,
    "averages": "constant",
    "averages.decays": (0.1,),
    "checkpoint.every": 2,
    "evaluation.every": 0,
    "evaluation.grid": 2,
    "evaluation.samplers": ("one-step",),
    "evaluation.extractor": "none",
    "tracking.uri": "none",
}


@pytest.fixture(scope="module")
def bars(tmp_path_factory):
    """A folder of 24 files of 24x16 in colour: a bar in one of three columns."""
    folder, draw = tmp_path_factory.mktemp("bars"), np.random.default_rng(0)
    for number in range(24):
        pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        left = 3 + 6 * (number % 3)
        pixels[3:13, left : left + 4] = draw.integers(120, 256, 3)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    return folder


def trained(family, bars, out):
    """Return a run of two steps."""
    other = {"column": "ve"} if family == "refinenet" else {"network.conditional": False}
    recipe = override(cm.recipes.ict_digits(), {"network": family, **other})
    known = {path: value for path, value in SETTINGS.items() if path in flatten(recipe)}
    return cm.train(override(recipe, EVERYWHERE | known), bars, out=out, steps=2, quiet=True)


@pytest.fixture(scope="module", params=FAMILIES)
def model(request, bars, tmp_path_factory):
    """A model of each family, no weight of which is zero."""
    made = trained(request.param, bars, tmp_path_factory.mktemp("runs") / "run").model
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        for parameter in made.torch_model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    return made


class Means:
    """Features: the means of the quarters of an image."""

    name, dim, weights_sha256, preprocess = "quarters", 4, "none", "none"

    def features(self, images):
        """Return (b, 4)."""
        assert images.shape[2:] == (HEIGHT, WIDTH)
        return torch.nn.functional.adaptive_avg_pool2d(images.float().mean(1), 2).flatten(1)


def test_every_network_trains_samples_edits_scores_and_is_exported(model, bars, tmp_path):
    assert model.spec.shape == (3, HEIGHT, WIDTH)
    samples = model.sample(3, seed=1)
    assert samples.shape == (3, HEIGHT, WIDTH, 3)
    assert samples.std() > 0
    row = samples.grid(columns=3)
    assert row.width / row.height == pytest.approx(3 * WIDTH / HEIGHT, rel=0.1)
    given = cm.load_images(bars).images[:2].permute(0, 2, 3, 1).numpy()
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[:, : WIDTH // 2] = True
    inpainted = model.inpaint(given, mask, steps=2)
    np.testing.assert_array_equal(inpainted[:, mask], given[:, mask])
    assert (inpainted[:, ~mask] != given[:, ~mask]).any()
    large = model.upscale(given[:, ::4, ::4], factor=4, steps=2)
    means = large.reshape(2, HEIGHT // 4, 4, WIDTH // 4, 4, 3).mean((2, 4))
    assert large.shape == given.shape
    assert np.corrcoef(means.ravel(), given[:, ::4, ::4].ravel())[0, 1] > 0.8, "the patches are kept"
    for edited in (model.colorize(given, steps=2), model.stroke(given), model.denoise(given, 0.5)):
        assert edited.shape == given.shape
    found = cm.score(model, bars, extractor=Means(), n=8, kinds=("FD",))
    assert found["FD"].value > 0
    again = cm.load(model.export("safetensors", tmp_path / "m"))
    np.testing.assert_array_equal(again.sample(3, seed=1), samples)


@pytest.fixture
def tiny():
    """A model with random weights."""
    made = Model(ModelSpec(network=TINY, diffusion=Diffusion(), shape=(3, HEIGHT, WIDTH))).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return made


def test_the_page_shows_and_edits_them(tiny, bars):
    page = Playground(tiny)
    *_, last = page.sample(2, 1, 3, None)
    assert last.picture.width > 2 * last.picture.height
    given = page.opened(next(bars.iterdir()).read_bytes())
    assert given.shape == (HEIGHT, WIDTH, 3)
    canvas = page.canvas(given)
    assert canvas.shape[1] / canvas.shape[0] == WIDTH / HEIGHT
    form = EditForm(task="upscale", factor=4, steps=2, samples=1)
    *_, shown = page.edit(form, given, CanvasContent(None, ()))
    assert shown.picture.width > 3 * shown.picture.height


def test_diffusers_has_square_images(tiny, tmp_path):
    with pytest.raises(UserError, match="its images are 24x16, and the pipeline's are square"):
        export_model(tiny, "diffusers", tmp_path / "d")


@pytest.mark.slow
def test_a_program_of_pytorch_makes_them(tiny, tmp_path):
    noise = torch.randn(2, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    program = torch.export.load(export_model(tiny, "torch", tmp_path / "p")).module()
    with torch.no_grad():
        wanted = tiny(80 * noise, torch.full((2,), 80.0)).clamp(-1, 1)
        torch.testing.assert_close(program(noise), wanted, rtol=1e-4, atol=1e-5)


def test_a_network_does_not_mistake_rows_for_columns():
    """The answer of turned weights for a turned image is turned."""
    lying, standing = (
        Model(ModelSpec(network=TINY, diffusion=Diffusion(), shape=shape)).eval()
        for shape in ((1, 8, 12), (1, 12, 8))
    )
    weights = {name: 0.2 * torch.randn_like(each) for name, each in lying.network.state_dict().items()}
    lying.network.load_state_dict(weights)
    turned = {name: each.transpose(2, 3) if each.ndim == 4 else each for name, each in weights.items()}
    standing.network.load_state_dict(turned)
    x, t = torch.randn(2, 1, 8, 12), torch.tensor([0.5, 3.0])
    with torch.no_grad():
        torch.testing.assert_close(standing(x.transpose(2, 3), t), lying(x, t).transpose(2, 3))


def test_recipes_take_their_size():
    recipe = recipe_for_images("ict", (3, 48, 64))
    assert recipe.name == "ict_64x48"
    assert recipe.network.channel_mult == (2, 2, 2), "levels of 48x64, 24x32 and 12x16"
    assert recipe_for_images("ict", (3, 36, 64)).network.channel_mult == (2, 2, 2)
    assert recipe_for_images("ict", (3, 30, 64)).network.channel_mult == (2, 2)
    facts = DataFacts(path="x", count=9, shape=(3, 16, 24), classes=0, sigma_data=0.5)
    assert networks_for(facts)[1].channel_mult == (1, 2)
    assert networks_for(facts)[1].attention_resolutions == (8, 16)
    with pytest.raises(UserError, match="The images are 24x6: sides of at least 8"):
        recipe_for_images("ict", (3, 6, 24))
