"""DDPM++, NCSN++ and ADM as in Karras et al.: their tensor lists, and their forward pass written out again.

The oracle goes through tensors under their names with plain convolutions, one line a step of the description
in appendix F.4 and of Song et al. 2021; it shares no code with the networks.
"""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from torch.nn.functional import conv2d, conv_transpose2d, group_norm, linear, silu

from cm_ray import recipes
from cm_ray.core.diffusion import Diffusion
from cm_ray.core.precondition import EDM, VE, VP
from cm_ray.errors import UserError
from cm_ray.networks.architectures import ADM, DDPMpp, GroupNormUNet, NCSNpp
from cm_ray.networks.formats.edm import read_edm
from cm_ray.networks.formats.reading import load_model, read_model
from cm_ray.networks.formats.unet_layers import network_of
from cm_ray.networks.model import ModelSpec
from cm_ray.networks.unet import UNet
from cm_ray.settings.tree import override
from cm_ray.training.batch import Batch
from cm_ray.training.engine import Engine


class Theirs:
    """A state dict under their names, with random numbers, and what their network computes of it."""

    def __init__(self, kind, size=8, channels=128, mult=(2, 1), blocks=2, attention=(4,), classes=0):
        self.kind, self.size, self.channels, self.mult = kind, size, channels, mult
        self.blocks, self.attention, self.classes = blocks, attention, classes
        self.adm, self.state = kind == "adm", {}
        self.filter = torch.tensor([1.0, 3.0, 3.0, 1.0] if kind == "ncsn++" else [1.0, 1.0])
        self.generator = torch.Generator().manual_seed(0)
        self._mapping()
        self._levels()

    def _put(self, name, *shape, bias=True):
        fan = math.prod(shape[1:]) or 1
        self.state[f"{name}.weight"] = torch.randn(shape, generator=self.generator) / math.sqrt(fan)
        if bias:
            self.state[f"{name}.bias"] = 0.1 * torch.randn(shape[0], generator=self.generator)

    def _norm(self, name, channels):
        self.state[f"{name}.weight"] = 1 + 0.1 * torch.randn(channels, generator=self.generator)
        self.state[f"{name}.bias"] = 0.1 * torch.randn(channels, generator=self.generator)

    def _resampling(self, name):
        taps = self.filter
        self.state[f"{name}.resample_filter"] = (torch.outer(taps, taps) / taps.sum().square())[None, None]

    def _mapping(self):
        noise = self.channels * (2 if self.kind == "ncsn++" else 1)
        if self.kind == "ncsn++":
            self.state["map_noise.freqs"] = torch.randn(noise // 2, generator=self.generator)
        self._put("map_layer0", 4 * self.channels, noise)
        self._put("map_layer1", 4 * self.channels, 4 * self.channels)
        if self.classes:
            self._put("map_label", 4 * self.channels if self.adm else noise, self.classes, bias=not self.adm)
        if not self.adm:
            self._put("map_augment", noise, 9, bias=False)

    def _block(self, name, cin, cout, attention=False, resample=False):
        self._norm(f"{name}.norm0", cin)
        self._put(f"{name}.conv0", cout, cin, 3, 3)
        self._put(f"{name}.affine", cout * (2 if self.adm else 1), 4 * self.channels)
        self._norm(f"{name}.norm1", cout)
        self._put(f"{name}.conv1", cout, cout, 3, 3)
        if cin != cout or (resample and not self.adm):
            self._put(f"{name}.skip", cout, cin, 1, 1)
        if resample:
            self._resampling(f"{name}.conv0")
            self._resampling(f"{name}.skip")
        if attention:
            self._norm(f"{name}.norm2", cout)
            self._put(f"{name}.qkv", 3 * cout, cout, 1, 1)
            self._put(f"{name}.proj", cout, cout, 1, 1)

    def _levels(self):
        """The order of their modules: what is called what, and how wide."""
        width = self.channels * (self.mult[0] if self.adm else 1)
        self._put(f"enc.{self.size}x{self.size}_conv", width, 3, 3, 3)
        skips, coarse = [width], 3
        for level, mult in enumerate(self.mult):
            res = self.size >> level
            if level:
                self._block(f"enc.{res}x{res}_down", width, width, resample=True)
                skips.append(width)
                if self.kind == "ncsn++":
                    self._put(f"enc.{res}x{res}_aux_residual", width, coarse, 3, 3)
                    self._resampling(f"enc.{res}x{res}_aux_residual")
                    coarse = width
            for index in range(self.blocks):
                self._block(
                    f"enc.{res}x{res}_block{index}", width, mult * self.channels, res in self.attention
                )
                width = mult * self.channels
                skips.append(width)
        for level, mult in reversed(list(enumerate(self.mult))):
            res = self.size >> level
            if level == len(self.mult) - 1:
                self._block(f"dec.{res}x{res}_in0", width, width, attention=True)
                self._block(f"dec.{res}x{res}_in1", width, width)
            else:
                self._block(f"dec.{res}x{res}_up", width, width, resample=True)
            for index in range(self.blocks + 1):
                attends = res in self.attention and (self.adm or index == self.blocks)
                name = f"dec.{res}x{res}_block{index}"
                self._block(name, width + skips.pop(), mult * self.channels, attends)
                width = mult * self.channels
        last = (
            ("out_norm", "out_conv")
            if self.adm
            else (f"dec.{res}x{res}_aux_norm", f"dec.{res}x{res}_aux_conv")
        )
        self._norm(last[0], width)
        self._put(last[1], 3, width, 3, 3)

    # what it computes

    def _kernel(self, channels):
        side = self.filter / self.filter.sum()
        return (side[:, None] * side)[None, None].repeat(channels, 1, 1, 1)

    def _resample(self, x, name):
        pad = (len(self.filter) - 1) // 2
        kernel = self._kernel(x.shape[1])
        if name.endswith("down"):
            return conv2d(x, kernel, stride=2, padding=pad, groups=x.shape[1])
        if name.endswith("up"):
            return conv_transpose2d(x, 4 * kernel, stride=2, padding=pad, groups=x.shape[1])
        return x

    def _of(self, name):
        return self.state[f"{name}.weight"], self.state.get(f"{name}.bias")

    def _normed(self, x, name):
        groups = min(32, x.shape[1] // 4)
        return group_norm(x, groups, *self._of(name), eps=1e-5 if self.adm else 1e-6)

    def _run_block(self, x, emb, name):
        scale = 1.0 if self.adm else math.sqrt(0.5)
        h = conv2d(
            self._resample(silu(self._normed(x, f"{name}.norm0")), name),
            *self._of(f"{name}.conv0"),
            padding=1,
        )
        params = linear(emb, *self._of(f"{name}.affine"))[:, :, None, None]
        if self.adm:
            gain, shift = params.chunk(2, dim=1)
            h = silu(self._normed(h, f"{name}.norm1") * (gain + 1) + shift)
        else:
            h = silu(self._normed(h + params, f"{name}.norm1"))
        h = conv2d(h, *self._of(f"{name}.conv1"), padding=1)
        x = self._resample(x, name)
        if f"{name}.skip.weight" in self.state:
            x = conv2d(x, *self._of(f"{name}.skip"))
        x = (x + h) * scale
        if f"{name}.qkv.weight" not in self.state:
            return x
        b, c, height, width = x.shape
        heads = c // 64 if self.adm else 1
        qkv = conv2d(self._normed(x, f"{name}.norm2"), *self._of(f"{name}.qkv"))
        q, k, v = qkv.reshape(b, heads, c // heads, 3, height * width).unbind(3)
        weights = torch.softmax(torch.einsum("bhcq,bhck->bhqk", q, k) / math.sqrt(c // heads), dim=-1)
        mixed = torch.einsum("bhqk,bhck->bhcq", weights, v).reshape(x.shape)
        return (x + conv2d(mixed, *self._of(f"{name}.proj"))) * scale

    def _embed(self, time, labels, augment):
        half = self.state["map_layer0.weight"].shape[1] // 2
        if self.kind == "ncsn++":
            angles = time[:, None] * 2 * math.pi * self.state["map_noise.freqs"]
        else:
            angles = time[:, None] * 10_000.0 ** (-torch.arange(half) / (half if self.adm else half - 1))
        first, second = (angles.cos(), angles.sin()) if self.adm else (angles.sin(), angles.cos())
        emb = torch.cat([first, second], dim=1)
        one_hot = torch.nn.functional.one_hot(labels, self.classes).float() if self.classes else None
        if one_hot is not None and not self.adm:
            emb = emb + linear(one_hot * math.sqrt(self.classes), *self._of("map_label"))
        if augment is not None:
            emb = emb + linear(augment, *self._of("map_augment"))
        emb = linear(silu(linear(emb, *self._of("map_layer0"))), *self._of("map_layer1"))
        if one_hot is not None and self.adm:
            emb = emb + linear(one_hot, *self._of("map_label"))
        return silu(emb)

    def __call__(self, x, time, labels, augment=None):
        emb = self._embed(time, labels, augment)
        aux, skips = x, []
        for level in range(len(self.mult)):
            res = self.size >> level
            if level == 0:
                x = conv2d(x, *self._of(f"enc.{res}x{res}_conv"), padding=1)
            else:
                x = self._run_block(x, emb, f"enc.{res}x{res}_down")
            if level and self.kind == "ncsn++":
                weight, bias = self._of(f"enc.{res}x{res}_aux_residual")
                aux = conv2d(aux, weight, padding=2)
                aux = conv2d(aux, self._kernel(aux.shape[1]), stride=2, groups=aux.shape[1])
                x = aux = (x + aux + bias[:, None, None]) / math.sqrt(2)
            skips.append(x)
            for index in range(self.blocks):
                x = self._run_block(x, emb, f"enc.{res}x{res}_block{index}")
                skips.append(x)
        for level in reversed(range(len(self.mult))):
            res = self.size >> level
            for name in ("in0", "in1") if level == len(self.mult) - 1 else ("up",):
                x = self._run_block(x, emb, f"dec.{res}x{res}_{name}")
            for index in range(self.blocks + 1):
                x = self._run_block(torch.cat([x, skips.pop()], dim=1), emb, f"dec.{res}x{res}_block{index}")
        last = (
            ("out_norm", "out_conv")
            if self.adm
            else (f"dec.{res}x{res}_aux_norm", f"dec.{res}x{res}_aux_conv")
        )
        return conv2d(silu(self._normed(x, last[0])), *self._of(last[1]), padding=1)


CASES = [("ddpm++", 0), ("ddpm++", 3), ("ncsn++", 0), ("ncsn++", 3), ("adm", 0), ("adm", 3)]
SMALL = {
    "network.channels": 8,
    "network.norm_groups": 4,
    "network.channel_mult": (1, 1),
    "network.blocks": 1,
    "network.attention_resolutions": (4,),
}
ASSUMED = ModelSpec(
    network=ADM(), diffusion=Diffusion(column=VP(), boundary="none", t_max=70.0), shape=(3, 8, 8)
)
SCALED = dataclasses.replace(
    ASSUMED, diffusion=dataclasses.replace(ASSUMED.diffusion, column=EDM(sigma_data=0.3, time_scale=1000.0))
)
THEIRS = EDM(sigma_data=0.5, time_scale=1.0)


def like(network, kind, **more):
    """Return the network of another kind with the same settings, as far as both have them."""
    shared = {field.name for field in dataclasses.fields(GroupNormUNet)}
    values = {name: value for name, value in dataclasses.asdict(network).items() if name in shared}
    return {"ddpm++": DDPMpp, "ncsn++": NCSNpp}[kind](**values | more)


def of_kind(kind, classes, **more):
    return Theirs(kind, classes=classes, **more)


@pytest.mark.parametrize(("kind", "classes"), CASES)
def test_the_networks_are_theirs(kind, classes, tmp_path):
    theirs = of_kind(kind, classes)
    file = tmp_path / "edm-faces-8x8-cond-vp.pt"
    torch.save({f"model.{name}": value for name, value in theirs.state.items()}, file)
    made = load_model(file)
    config = made.spec.network
    assert (config.family, config.channel_mult, config.blocks, config.channels) == (
        kind,
        (2, 1),
        2,
        theirs.channels,
    )
    assert (made.spec.classes, made.spec.shape, made.spec.diffusion.column) == (classes, (3, 8, 8), THEIRS)
    x, time = torch.randn(3, 3, 8, 8), torch.tensor([-1.5, 0.3, 1.1])
    labels = torch.tensor([0, 2, 1]) if classes else None
    with torch.no_grad():
        wanted = theirs(x, time, labels)
        assert wanted.std() > 0.1
        torch.testing.assert_close(made.network(x, time, labels), wanted, rtol=1e-4, atol=1e-4)
        assert made.spec.augment == (0 if kind == "adm" else 9)
        if made.spec.augment:
            augment = torch.randn(3, 9)
            told = theirs(x, time, labels, augment)
            assert (told - wanted).abs().max() > 1e-2
            given = made.network(x, time, labels, augment=augment)
            torch.testing.assert_close(given, told, rtol=1e-4, atol=1e-4)
            zeros = made.network(x, time, labels, augment=torch.zeros(3, 9))
            assert torch.equal(zeros, made.network(x, time, labels)), "samples know of no augmentation"


@pytest.mark.parametrize(
    ("kind", "classes", "parameters"),
    [("ddpm++", 0, 55_733_891), ("ddpm++", 10, 55_735_299), ("ncsn++", 0, 56_397_827)],
)
def test_cifar10_is_theirs(kind, classes, parameters):
    """Tensor by tensor; their numbers of parameters have the layer of their augmentation, as ours do."""
    theirs = Theirs(kind, 32, 128, (2, 2, 2), 4, (16,), classes)
    trained = {name: x for name, x in theirs.state.items() if not name.endswith(("freqs", "resample_filter"))}
    assert sum(x.numel() for x in trained.values()) == parameters
    spec, weights = read_edm(Path("edm-cifar10-32x32-uncond-ve.pt"), theirs.state, None)
    recipe = recipes.ct_cifar10()
    assert spec.network == like(recipe.network, kind, conditional=classes > 0)
    assert spec.diffusion.column == recipe.diffusion.column == THEIRS
    ours = [x for name, x in network_of(spec).named_parameters() if name in weights and x.requires_grad]
    assert sum(x.numel() for x in ours) == parameters


@pytest.mark.parametrize(
    ("stem", "assumed", "column"),
    [
        ("edm-cifar10-32x32-uncond-ve", ASSUMED, THEIRS),
        ("baseline-cifar10-32x32-uncond-vp", SCALED, VP()),
        ("baseline-cifar10-32x32-cond-ve", ASSUMED, VE()),
        ("edm-imagenet-64x64-cond-adm", SCALED, THEIRS),
        ("mine", ASSUMED, VP()),
        ("mine", SCALED, THEIRS),
    ],
)
def test_names_tell_the_column(stem, assumed, column, tmp_path):
    theirs = of_kind("ddpm++", 0, blocks=1)
    torch.save(theirs.state, tmp_path / f"{stem}.pt")
    diffusion = read_model(tmp_path / f"{stem}.pt", assumed)[0].diffusion
    assert diffusion.column == column, "an EDM column is theirs, whatever the run's"
    assert diffusion.boundary == "none"
    assert diffusion.t_max == (70.0 if stem == "mine" else 80.0)


def harmed(remove=(), **more):
    state = {k: v for k, v in of_kind("ncsn++", 0, blocks=1).state.items() if k not in remove}
    return state | more


FILTERS = {k: v for k, v in of_kind("ddpm++", 0, blocks=1).state.items() if k.endswith("resample_filter")}


@pytest.mark.parametrize(
    ("state", "assumed", "sentence"),
    [
        (harmed(), None, "has an unknown column of EDM's table 1"),
        (harmed(more=torch.zeros(1)), ASSUMED, "has more, unlike the network of EDM"),
        (harmed(remove=("enc.4x4_down.skip.bias",)), ASSUMED, "lacks enc.4x4_down.skip.bias"),
        (
            harmed(remove=("enc.8x8_conv.weight",)),
            ASSUMED,
            "is not one of EDM's networks",
        ),
        (
            of_kind("ddpm++", 0, channels=64, blocks=1).state,
            ASSUMED,
            "normalises 64 channels in .*, for which EDM's code uses 16 groups, not 32; .* at least 128",
        ),
        (
            harmed(**FILTERS),
            ASSUMED,
            r"resampling filter in enc.4x4_down.conv0.resample_filter than ncsn\+\+'s, \[1, 3, 3, 1\]",
        ),
    ],
)
def test_what_cannot_be_read_is_said(state, assumed, sentence, tmp_path):
    with pytest.raises(UserError, match=sentence):
        read_edm(tmp_path / "mine.pt", state, assumed)


def test_weights_begin_as_song_has_them():
    """Variances of Glorot's numbers; what ends a path begins near zero, biases at zero."""
    torch.manual_seed(0)
    config = dataclasses.replace(recipes.ct_cifar10().network, channels=64, channel_mult=(1, 1), blocks=1)
    network = UNet(config, (3, 16, 16), 0).requires_grad_(False)
    block, attention = network.middle_block[0], network.middle_block[1]
    spread = math.sqrt(2 / (64 * 9 * 2))
    assert float(block.in_layers[2].weight.std()) == pytest.approx(spread, rel=0.02)
    assert float(block.out_layers[3].weight.std()) == pytest.approx(1e-5 * spread, rel=0.02)
    assert float(attention.qkv.weight.std()) == pytest.approx(math.sqrt(0.2 * 2 / (64 * 4)), rel=0.03)
    assert float(network.time_features.frequencies.std()) == pytest.approx(16, rel=0.25)
    biases = [p for name, p in network.named_parameters() if name.endswith("emb_layers.1.bias")]
    assert all(not bias.any() for bias in biases)


def test_frequencies_stay_as_they_are():
    config = override(recipes.ict_cifar10(), SMALL | {"distance": "l2", "steps": 2, "batch_size": 2})
    engine = Engine(config, ModelSpec(network=config.network, diffusion=config.diffusion, shape=(3, 8, 8)))
    before = engine.student.network.time_features.frequencies.clone()
    assert float(before.std()) < 0.05, "iCT's scale is 0.02"
    batch = Batch(torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8), torch.zeros(2).long())
    assert len(list(engine.train([batch, batch]))) == 2
    name = "time_features.frequencies"
    assert torch.equal(engine.student.network.state_dict()[name], before)
    assert torch.equal(engine.averaged_weights()[name], before)
    assert torch.equal(engine.averaged_model().network.state_dict()[name], before)
