"""Our directory is a pipeline to the real diffusers, whose images are ours; in and out is the identity."""

import dataclasses
import inspect
import json
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file

from cm_ray import recipes
from cm_ray.core.diffusion import Diffusion
from cm_ray.core.precondition import EDM, VP
from cm_ray.core.times import karras_times
from cm_ray.errors import UserError
from cm_ray.networks.architectures import ADM, DDPMpp
from cm_ray.networks.formats.diffusers_config import DEFAULTS
from cm_ray.networks.formats.diffusers_config import spec_of as spec_of_config
from cm_ray.networks.formats.diffusers_names import from_diffusers, to_diffusers
from cm_ray.networks.formats.diffusers_pipeline import write_pipeline
from cm_ray.networks.formats.diffusers_unet import FIXED_STEPS, LEVELS, diffusion_of
from cm_ray.networks.formats.openai import placeholders
from cm_ray.networks.formats.reading import load_model, read_model
from cm_ray.networks.formats.unet_layers import network_of
from cm_ray.networks.model import Model, ModelSpec, save_model
from cm_ray.networks.vision import torchvision
from cm_ray.sampling.sampling_steps import clipped, multistep
from cm_ray.sampling.text import parse
from tests.networks.test_unet import trained_like

IMAGENET = recipes.ct_imagenet64().network
LSUN = recipes.ct_lsun256().network
SMALL = {"channels": 8, "head_channels": 4, "norm_groups": 8, "gradient_checkpointing": False}


def spec_of(network, size, classes, **diffusion):
    return ModelSpec(
        network=network,
        diffusion=Diffusion(**diffusion),
        shape=(3, size, size),
        class_names=placeholders(classes),
    )


SPECS = {
    "imagenet64": spec_of(dataclasses.replace(IMAGENET, attention_resolutions=(8, 4, 2), **SMALL), 16, 10),
    "lsun256": spec_of(dataclasses.replace(LSUN, attention_resolutions=(4, 2, 1), **SMALL), 32, 0),
    "convolutions": spec_of(
        ADM(
            channels=16,
            channel_mult=(1, 2),
            blocks=1,
            attention_resolutions=(8,),
            head_channels=0,
            norm_groups=4,
            resample_blocks=False,
        ),
        8,
        0,
        column=EDM(sigma_data=0.75),
        t_max=40.0,
    ),
}
"""The true architectures with few channels, on small images; and one with all other settings."""


def model(spec):
    torch.manual_seed(0)
    made = Model(spec).eval()
    trained_like(made.network)
    return made


@pytest.fixture(scope="module")
def diffusers():
    """The real library."""
    torchvision()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import diffusers

    diffusers.utils.logging.set_verbosity_error()
    return diffusers


def pipeline_images(diffusers, folder, latents, labels, timesteps):
    """Return what diffusers makes of these latents, in [-1, 1]; noise between steps is that of seed 5."""
    pipeline = diffusers.ConsistencyModelPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(
        batch_size=len(latents),
        class_labels=labels,
        num_inference_steps=None if timesteps else 1,
        timesteps=timesteps,
        latents=latents,
        generator=torch.Generator().manual_seed(5),
        output_type="pt",
    ).images
    return 2 * images - 1


def our_images(made, latents, labels, sampler):
    generator = torch.Generator().manual_seed(5)
    noise = lambda step: torch.randn(latents.shape, generator=generator) if step else latents  # noqa: E731
    *_, last = multistep(clipped(lambda x, t: made(x, t, labels)), noise, sampler.times(made.spec.diffusion))
    return last.x


@pytest.mark.parametrize("name", SPECS)
def test_the_pipelines_images_are_ours(name, diffusers, tmp_path):
    t_max = SPECS[name].diffusion.t_max
    grid = karras_times(18, t_max=t_max).flip(0).tolist()  # as distilled on CIFAR-10
    spec = dataclasses.replace(SPECS[name], time_points=((grid[11],), (grid[4], grid[13])))
    made = model(spec)
    timesteps = write_pipeline(tmp_path / "p", spec, made.network.state_dict(), boundaries=18)
    assert timesteps == {2: (11, 0), 3: (13, 4, 0)}
    latents = torch.randn(2, *spec.shape, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([3, 7]) if spec.classes else None
    with torch.no_grad():
        for text, steps in [("one-step", None), ("multistep:2", [11, 0]), ("multistep:3", [13, 4, 0])]:
            sampler = parse(text, spec.diffusion, time_points=spec.time_points)
            ours = our_images(made, latents, labels, sampler)
            theirs = pipeline_images(diffusers, tmp_path / "p", latents, labels, steps)
            assert 0.02 < ours.abs().mean() < 0.98, text
            assert (ours - theirs).abs().max() <= 1e-4, text


@pytest.mark.parametrize("name", SPECS)
def test_in_and_out_is_the_identity(name, tmp_path):
    made = model(SPECS[name])
    weights = made.network.state_dict()
    write_pipeline(tmp_path / "p", made.spec, weights)
    spec, back = read_model(tmp_path / "p")
    assert spec == made.spec
    assert list(back) == list(weights)
    assert all(torch.equal(back[key], weights[key]) for key in weights)
    write_pipeline(tmp_path / "q", spec, back)
    for file in ("model_index.json", "unet/config.json", "scheduler/scheduler_config.json"):
        assert (tmp_path / "p" / file).read_text() == (tmp_path / "q" / file).read_text()
    first, second = (
        load_file(tmp_path / place / "unet" / "diffusion_pytorch_model.safetensors") for place in "pq"
    )
    assert set(first) == set(second)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_what_the_library_itself_saves_is_read(diffusers, tmp_path):
    """An older kind of file, half precision, and a config with all its defaults are read too."""
    made = model(SPECS["imagenet64"])
    write_pipeline(tmp_path / "p", made.spec, made.network.state_dict())
    pipeline = diffusers.ConsistencyModelPipeline.from_pretrained(tmp_path / "p")
    pipeline.save_pretrained(tmp_path / "saved")
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            load_model(tmp_path / "saved").state_dict().values(), made.state_dict().values(), strict=True
        )
    )
    pipeline.to(torch.float16).save_pretrained(tmp_path / "half", safe_serialization=False)
    spec, half = read_model(tmp_path / "half")
    assert spec == made.spec
    for key, weights in made.network.state_dict().items():
        assert torch.equal(half[key], weights.half().float())


def changed(folder, place, **values):
    file = folder / place
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def without_a_tensor(folder, more):
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights.pop("mid_block.attentions.0.to_k.bias")
    save_file(weights | more, file)


def cut(file):
    file.write_bytes(file.read_bytes()[:-100])


UNET, STEPS = "unet/config.json", "scheduler/scheduler_config.json"
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (
            lambda p: changed(p, "model_index.json", _class_name="DDPMPipeline"),
            "is the config of a DDPMPipeline",
        ),
        (
            lambda p: changed(p, UNET, _class_name="UNet2DConditionModel"),
            "is the config of a UNet2DConditionModel",
        ),
        (lambda p: changed(p, STEPS, _class_name="DDIMScheduler"), "is the config of a DDIMScheduler"),
        (
            lambda p: changed(p, UNET, time_embedding_type="fourier"),
            "time_embedding_type 'fourier'; give a pipeline with",
        ),
        (lambda p: changed(p, UNET, block_out_channels=[16, 24]), "is not the config of an ADM U-Net"),
        (
            lambda p: changed(p, UNET, down_block_types=["SkipDownBlock2D", "AttnDownBlock2D"]),
            "SkipDownBlock2D",
        ),
        (lambda p: changed(p, UNET, resnet_time_scale_shift="spatial"), "resnet_time_scale_shift spatial"),
        (lambda p: changed(p, UNET, layers_per_block=2), "lacks down_blocks.0.resnets.1"),
        (
            lambda p: changed(p, UNET, num_class_embeds=4),
            "has num_class_embeds 4, and the weights have 0 classes",
        ),
        (
            lambda p: (p / STEPS).unlink(),
            "scheduler_config.json is missing; give a complete pipeline",
        ),
        (lambda p: (p / UNET).write_text("{"), "is not valid JSON"),
        (
            lambda p: (p / WEIGHTS).unlink(),
            "holds no weights; put diffusion_pytorch_model.safetensors there",
        ),
        (lambda p: cut(p / WEIGHTS), "is damaged or cut off|is cut off: its header"),
        (lambda p: without_a_tensor(p, {}), "lacks mid_block.attentions.0.to_k.bias"),
        (
            lambda p: without_a_tensor(
                p, {"mid_block.attentions.0.to_k.bias": torch.zeros(32), "more": torch.zeros(1)}
            ),
            "has more, unlike what its config describes",
        ),
        (
            lambda p: without_a_tensor(p, {"mid_block.attentions.0.to_k.bias": torch.zeros(31)}),
            "middle_block.1.qkv.bias is",
        ),
    ],
)
def test_what_cannot_be_read_is_said(harm, sentence, tmp_path):
    made = model(SPECS["convolutions"])
    write_pipeline(tmp_path / "p", made.spec, made.network.state_dict())
    harm(tmp_path / "p")
    with pytest.raises(UserError, match=sentence):
        load_model(tmp_path / "p")


def with_network(**changes):
    base = SPECS["convolutions"]
    return dataclasses.replace(base, network=dataclasses.replace(base.network, **changes))


@pytest.mark.parametrize(
    ("spec", "grid", "sentence"),
    [
        (spec_of(DDPMpp(), 64, 0), 40, r"the network is ddpm\+\+, and diffusers has only adm"),
        (with_network(channel_mult=(2, 2)), 40, "network.channel_mult begins with 2"),
        (spec_of(IMAGENET, 64, 0, boundary="none"), 40, "it is a diffusion model"),
        (spec_of(IMAGENET, 64, 0, boundary="piecewise"), 40, "its boundary is piecewise"),
        (spec_of(IMAGENET, 64, 0, boundary="zero"), 40, "its boundary is zero"),
        (spec_of(IMAGENET, 64, 0, column=VP()), 40, "its column is vp"),
        (
            spec_of(IMAGENET, 64, 0, column=EDM(time_scale=1.0)),
            40,
            "its time scale is 1, and the pipeline's is 1000",
        ),
        (SPECS["convolutions"], 1, "grid must be at least 2"),
        (
            dataclasses.replace(SPECS["convolutions"], time_points=((1.0, 0.9),)),
            5,
            r"grid 5 is too few to distinguish the time points \[1.0, 0.9\]",
        ),
    ],
)
def test_what_does_not_go_out_is_said(spec, grid, sentence, tmp_path):
    with pytest.raises(UserError, match=sentence):
        write_pipeline(tmp_path / "p", spec, {}, grid)
    assert not (tmp_path / "p").exists()


PUBLISHED = {
    "imagenet64": (
        spec_of(IMAGENET, 64, 1000),
        {"layers_per_block": 3, "num_class_embeds": 1000, "resnet_time_scale_shift": "scale_shift"},
        [192, 384, 576, 768],
        1,
    ),
    "lsun256": (
        spec_of(LSUN, 256, 0),
        {"layers_per_block": 2, "num_class_embeds": None, "resnet_time_scale_shift": "default"},
        [256, 256, 512, 512, 1024, 1024],
        3,
    ),
}
"""The configs of openai/diffusers-cd_imagenet64_l2 and its like: widths, and levels without attention."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_networks_are_diffusers(name, diffusers):
    """Config and tensor list of the real library's network, and of ours of the published size."""
    spec, config, widths, plain = PUBLISHED[name]
    attending = len(widths) - plain
    with torch.device("meta"):
        network = diffusers.UNet2DModel(
            sample_size=spec.shape[1],
            block_out_channels=widths,
            attention_head_dim=64,
            down_block_types=["ResnetDownsampleBlock2D"] * plain + ["AttnDownBlock2D"] * attending,
            up_block_types=["AttnUpBlock2D"] * attending + ["ResnetUpsampleBlock2D"] * plain,
            attn_norm_num_groups=32,
            downsample_type="resnet",
            upsample_type="resnet",
            **config,
        )
    scheduler = diffusers.CMStochasticIterativeScheduler(num_train_timesteps=40)
    read = spec_of_config(network.config, diffusion_of(scheduler.config), "here", spec.classes)
    assert read == dataclasses.replace(
        spec, network=dataclasses.replace(spec.network, gradient_checkpointing=False)
    )
    ours = network_of(spec).state_dict()
    theirs = to_diffusers(spec, ours)
    assert {key: x.shape for key, x in theirs.items()} == {
        key: x.shape for key, x in network.state_dict().items()
    }
    back = from_diffusers(spec, theirs, "here")
    assert {key: x.shape for key, x in back.items()} == {key: x.shape for key, x in ours.items()}


def test_the_defaults_are_those_of_diffusers(diffusers):
    for kind, defaults in [
        (diffusers.UNet2DModel, DEFAULTS),
        (diffusers.CMStochasticIterativeScheduler, LEVELS | FIXED_STEPS),
    ]:
        known = inspect.signature(kind.__init__).parameters
        assert {name: each.default for name, each in known.items() if name != "self"} == defaults


def test_a_copy_of_our_own_is_the_same_model(tmp_path):
    made = model(SPECS["imagenet64"])
    write_pipeline(tmp_path / "p", made.spec, made.network.state_dict())
    again = load_model(tmp_path / "p")
    save_model(tmp_path / "m", again.spec, again.network.state_dict())
    assert load_model(tmp_path / "m").spec == made.spec
