"""EDM2's U-Net: its published sizes and names, its forward pass written out again, magnitudes, its files.

The oracle goes through tensors under the published names with plain operations, one line a step of figure 21
and appendix B of Karras et al. 2024; it shares no code with the network.
"""

import dataclasses
import math

import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import conv2d, silu

from cm_ray.core.diffusion import Diffusion
from cm_ray.core.precondition import EDM, TrigFlow
from cm_ray.errors import SettingError, UserError
from cm_ray.networks.architectures import EDM2
from cm_ray.networks.edm2 import Block, EDM2UNet
from cm_ray.networks.formats.reading import load_model, read_model
from cm_ray.networks.magnitude import MPConv, MPFourier, mp_cat, mp_silu, mp_sum, renormalise, unit
from cm_ray.networks.model import Model, ModelSpec
from cm_ray.networks.renumbering import renumbered
from cm_ray.training.students import build_student

TINY = EDM2(
    channels=8, channel_mult=(1, 2), blocks=1, attention_resolutions=(4,), head_channels=4, conditional=True
)
SHAPE = (3, 8, 12)


def network_of(config=TINY, shape=SHAPE, classes=3, **options):
    """Return a network with random weights, whose gains are not zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = EDM2UNet(config, shape, classes, **options)
        for name, parameter in network.named_parameters():
            if "gain" in name:
                torch.nn.init.normal_(parameter)
    return network.eval()


def noise(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("channels", "millions"), [(192, 280.2), (256, 497.8), (320, 777.5), (384, 1119.3), (448, 1523.2)]
)
def test_published_sizes(channels, millions):
    """S, M, L, XL and XXL: the numbers of the paper's tables 2 and 3, with all 1000 classes of ImageNet."""
    for colours in (3, 4):  # ImageNet-64, and the latents of ImageNet-512
        with torch.device("meta"):
            network = EDM2UNet(EDM2(channels=channels, conditional=True), (colours, 64, 64), 1000)
        count = sum(each.numel() for each in network.parameters())
        assert round(count / 1e6, 1) == millions


def test_the_names_are_those_of_the_public_code():
    with torch.device("meta"):
        network = EDM2UNet(EDM2(conditional=True), (3, 64, 64), 1000)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert len(shapes) == 200
    for name, shape in {
        "out_gain": (),
        "emb_fourier.freqs": (192,),
        "emb_fourier.phases": (192,),
        "emb_noise.weight": (768, 192),
        "emb_label.weight": (768, 1000),
        "enc.64x64_conv.weight": (192, 4, 3, 3),
        "enc.32x32_down.conv_res0.weight": (192, 192, 3, 3),
        "enc.32x32_block0.conv_skip.weight": (384, 192, 1, 1),
        "enc.16x16_block2.attn_qkv.weight": (3 * 576, 576, 1, 1),
        "dec.8x8_in0.attn_proj.weight": (768, 768, 1, 1),
        "dec.8x8_in1.emb_gain": (),
        "dec.16x16_up.emb_linear.weight": (768, 768),
        "dec.64x64_block3.conv_res0.weight": (192, 384, 3, 3),
        "out_conv.weight": (3, 192, 3, 3),
    }.items():
        assert shapes[name] == shape
    assert not [name for name in shapes if "32x32_block" in name and "attn" in name]
    assert not [name for name in shapes if "8x8_in1.attn" in name or "bias" in name]


class Written:
    """The forward pass, written out on a state dict."""

    def __init__(self, weights, config, sizes):
        self.w, self.config, self.sizes = weights, config, sizes

    def kernel(self, name):
        w = self.w[f"{name}.weight"]
        fan = w[0].numel()
        rows = w.reshape(len(w), -1)
        rows = rows / (1e-4 + rows.square().mean(1, keepdim=True).sqrt())
        return rows.reshape(w.shape) / math.sqrt(fan)

    def conv(self, name, x):
        kernel = self.kernel(name)
        return conv2d(x, kernel, padding=(kernel.shape[-1] - 1) // 2)

    def mix(self, a, b, t):
        return ((1 - t) * a + t * b) / math.sqrt((1 - t) ** 2 + t**2)

    def silu(self, x):
        return silu(x) / 0.596

    def pixel(self, x, axis):
        return x / (1e-4 + x.square().mean(axis, keepdim=True).sqrt())

    def attention(self, name, x):
        b, c, h, w = x.shape
        dim = self.config.head_channels or c
        qkv = self.conv(f"{name}.attn_qkv", x).reshape(b, c // dim, dim, 3, h * w)
        out = torch.empty(b, c // dim, dim, h * w, dtype=x.dtype)
        for head in range(c // dim):
            q, k, v = (self.pixel(qkv[:, head, :, part], 1) for part in range(3))
            scores = torch.einsum("bdq,bdk->bqk", q, k) / math.sqrt(dim)
            out[:, head] = torch.einsum("bqk,bdk->bdq", scores.softmax(2), v)
        return self.mix(x, self.conv(f"{name}.attn_proj", out.reshape(b, c, h, w)), 0.3)

    def block(self, name, x, emb, resample=""):
        if resample == "down":
            x = (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
        if resample == "up":
            x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        skips = f"{name}.conv_skip.weight" in self.w
        encodes = name.startswith("enc")
        if encodes:
            x = self.pixel(self.conv(f"{name}.conv_skip", x) if skips else x, 1)
        c = emb @ self.kernel(f"{name}.emb_linear").t() * self.w[f"{name}.emb_gain"] + 1
        y = self.silu(self.conv(f"{name}.conv_res0", self.silu(x)) * c[:, :, None, None])
        y = self.conv(f"{name}.conv_res1", y)
        if not encodes and skips:
            x = self.conv(f"{name}.conv_skip", x)
        x = self.mix(x, y, 0.3)
        return (self.attention(name, x) if f"{name}.attn_qkv.weight" in self.w else x).clip(-256, 256)

    def embedding(self, time, labels):
        angles = torch.outer(time, self.w["emb_fourier.freqs"]) + self.w["emb_fourier.phases"]
        emb = (angles.cos() * math.sqrt(2)) @ self.kernel("emb_noise").t()
        if labels is not None:
            classes = self.w["emb_label.weight"].shape[1]
            hot = torch.eye(classes, dtype=emb.dtype)[labels] * math.sqrt(classes)
            emb = self.mix(emb, hot @ self.kernel("emb_label").t(), 0.5)
        return self.silu(emb)

    def __call__(self, x, time, labels=None):
        emb, blocks = self.embedding(time, labels), self.config.blocks
        x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
        skips = []
        for level, size in enumerate(self.sizes):
            x = self.block(f"enc.{size}_down", x, emb, "down") if level else self.conv(f"enc.{size}_conv", x)
            skips.append(x)
            for index in range(blocks):
                x = self.block(f"enc.{size}_block{index}", x, emb)
                skips.append(x)
        for level, size in reversed(list(enumerate(self.sizes))):
            if level == len(self.sizes) - 1:
                x = self.block(f"dec.{size}_in1", self.block(f"dec.{size}_in0", x, emb), emb)
            else:
                x = self.block(f"dec.{size}_up", x, emb, "up")
            for index in range(blocks + 1):
                skip = skips.pop()
                n, m = x.shape[1], skip.shape[1]
                joined = torch.cat([x / math.sqrt(n), skip / math.sqrt(m)], 1) * math.sqrt((n + m) / 2)
                x = self.block(f"dec.{size}_block{index}", joined, emb)
        return self.conv("out_conv", x) * self.w["out_gain"]


@pytest.mark.parametrize("changes", [{}, {"conditional": False, "head_channels": 0, "blocks": 2}])
def test_the_forward_pass_is_the_papers(changes):
    config = dataclasses.replace(TINY, **changes)
    classes = 3 if config.conditional else 0
    network = network_of(config, classes=classes).double()
    labels = torch.tensor([2, 0]) if classes else None
    x, time = noise(2, *SHAPE).double(), torch.tensor([0.3, -1.1], dtype=torch.float64)
    wanted = Written(network.state_dict(), config, ["8x12", "4x6"])(x, time, labels)
    torch.testing.assert_close(network(x, time, labels), wanted, rtol=1e-6, atol=1e-6)
    assert wanted.std() > 0.1


def magnitude(x):
    return float(x.detach().square().mean().sqrt())


def test_layers_preserve_magnitudes():
    """Independent inputs of magnitude 1 keep it: convolutions without borders, linear layers, functions."""
    torch.manual_seed(2)
    a, b = torch.randn(8, 64, 34, 34), torch.randn(8, 16, 34, 34)
    one = pytest.approx(1, abs=0.02)
    assert magnitude(mp_silu(a)) == one
    assert magnitude(mp_sum(a, torch.randn_like(a), 0.3)) == one
    joined = mp_cat(a, b, 0.3)
    assert magnitude(joined) == one
    halves = magnitude(joined[:, :64]) * math.sqrt(64), magnitude(joined[:, 64:]) * math.sqrt(16)
    assert halves[1] / halves[0] == pytest.approx(0.3 / 0.7, rel=0.02)
    assert magnitude(unit(5 * a, 1)) == pytest.approx(1, abs=1e-3)
    times = MPFourier(256)(torch.randn(512))
    assert magnitude(times) == one
    assert magnitude(MPConv(256, 96)(times)) == pytest.approx(1, abs=0.05)
    assert magnitude(MPConv(64, 32, 3)(a)[..., 1:-1, 1:-1]) == one
    assert magnitude(MPConv(16, 48, 1)(b)) == one


@pytest.mark.parametrize("side", ["enc", "dec"])
@pytest.mark.parametrize("attention", [False, True])
def test_blocks_preserve_magnitudes_at_the_start(side, attention):
    """Far from the borders, where zeros are convolved, too; attention averages: its branch is small."""
    torch.manual_seed(3)
    config = EDM2(channels=96, channel_mult=(1,), head_channels=32)
    block = Block(config, 96, 96, side, attention=attention)
    out = block(torch.randn(4, 96, 20, 20), torch.randn(4, 96))
    assert magnitude(out[..., 4:-4, 4:-4]) == pytest.approx(0.92 if attention else 1, abs=0.03)


def test_forced_normalisation_changes_no_output_and_is_idempotent():
    """Once more changes weights by the paper's epsilon of 1e-4, and from then on not at all."""
    network = network_of()
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, MPConv):
                layer.weight.mul_(
                    torch.linspace(0.5, 3, len(layer.weight)).view(-1, *[1] * (layer.weight.ndim - 1))
                )
    x, time, labels = noise(2, *SHAPE), torch.tensor([0.3, -1.1]), torch.tensor([2, 0])
    before = network(x, time, labels)
    renormalise(network)
    once = torch.cat([w.flatten() for w in network.parameters()])
    renormalise(network)
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    sizes = [w.square().flatten(1).mean(1).sqrt() for n, w in weights.items() if n.endswith("weight")]
    torch.testing.assert_close(torch.cat(sizes), torch.ones(sum(map(len, sizes))), rtol=0, atol=2e-4)
    torch.testing.assert_close(
        torch.cat([w.flatten() for w in network.parameters()]), once, rtol=3e-4, atol=0
    )
    torch.testing.assert_close(network(x, time, labels), before, rtol=0, atol=2e-3)
    network.before_step()
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, weights[name], rtol=1e-6, atol=1e-7)
    assert torch.equal(network.out_gain, weights["out_gain"])


def test_it_begins_at_zero_and_every_parameter_is_used():
    x, time, labels = noise(2, *SHAPE), torch.tensor([0.3, -1.1]), torch.tensor([2, 0])
    assert not EDM2UNet(TINY, SHAPE, 3)(x, time, labels).any()
    network = network_of(two_times=True)
    network(x, time, labels, time / 2).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert not parameter.requires_grad or parameter.grad.abs().sum() > 0, name


def test_a_second_time_has_no_effect_at_first():
    """The weights of one time are a start of two times."""
    one = network_of().to(memory_format=torch.channels_last)
    two = Diffusion(column=TrigFlow(), boundary="two-times")
    spec = ModelSpec(network=TINY, diffusion=two, shape=SHAPE, class_names=("a", "b", "c"))
    student = build_student(spec, 0, one.state_dict()).network.eval()
    x, time, labels = noise(2, *SHAPE), torch.tensor([0.3, -1.1]), torch.tensor([2, 0])
    assert torch.equal(student(x, time, labels, time / 2), one(x, time, labels))
    with torch.no_grad():
        student.second_embed.gain += 0.1
    assert not torch.equal(student(x, time, labels, time / 2), one(x, time, labels))
    with pytest.raises(ValueError, match="the input second needs it"):
        student(x, time, labels)


def test_the_null_class_is_the_zero_vector():
    x, time = noise(2, *SHAPE), torch.tensor([0.3, -1.1])
    network = network_of(dataclasses.replace(TINY, label_dropout=0.1))
    plain = Written(network.state_dict() | {"emb_label.weight": torch.zeros(16, 3)}, TINY, ["8x12", "4x6"])
    wanted = plain(x, time, torch.tensor([0, 0]))
    torch.testing.assert_close(network(x, time, torch.tensor([-1, -1])), wanted, rtol=1e-4, atol=1e-5)


def test_recomputing_changes_nothing():
    x, time, labels = noise(2, *SHAPE), torch.tensor([0.3, -1.1]), torch.tensor([2, 0])
    gradients = []
    for recomputed in (False, True):
        network = network_of(
            dataclasses.replace(TINY, gradient_checkpointing=recomputed, dropout=0.5)
        ).train()
        torch.manual_seed(4)
        network(x, time, labels).square().sum().backward()
        gradients.append([p.grad for p in network.parameters() if p.requires_grad])
    for a, b in zip(*gradients, strict=True):
        assert torch.equal(a, b)


def test_it_compiles_as_one_graph():
    found = torch._dynamo.explain(network_of())(
        noise(2, *SHAPE), torch.tensor([0.3, -1.1]), torch.tensor([2, 0])
    )
    torch.compiler.reset()
    assert (found.graph_count, found.graph_break_count) == (1, 0)


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match="images of 8x9 pixels cannot be halved 1 times"):
        EDM2UNet(TINY, (1, 8, 9), 0)
    with pytest.raises(UserError, match=r"network.head_channels 3 does not divide the channels \[8, 16\]"):
        EDM2UNet(dataclasses.replace(TINY, head_channels=3), SHAPE, 0)
    with pytest.raises(ValueError, match="needs labels"):
        network_of()(noise(1, *SHAPE), torch.zeros(1))
    with pytest.raises(SettingError, match="fourier_scale must be positive"):
        EDM2(fourier_scale=0.0)


def published(weights):
    """Return tensors as the public code saves them, with its estimate of uncertainty, in float16."""
    both = {f"unet.{name}": tensor for name, tensor in weights.items()}
    both |= {"logvar_fourier.freqs": torch.ones(128), "logvar_fourier.phases": torch.ones(128)}
    both["logvar_linear.weight"] = torch.ones(1, 128)
    return {name: tensor.half() for name, tensor in both.items()}


BIG = dataclasses.replace(TINY, head_channels=64, channels=64, attention_resolutions=())


def test_a_published_file_is_read_and_comes_out_again(tmp_path):
    network = network_of(BIG, (3, 8, 8))
    weights = {name: tensor.half().float() for name, tensor in network.state_dict().items()}
    file = tmp_path / "edm2-img8-s-0000123-0.100.safetensors"
    save_file(published(weights), file)
    spec, found = read_model(file)
    assert spec.network == BIG
    assert spec.shape == (3, 8, 8)
    assert spec.diffusion == Diffusion(boundary="none", column=EDM(sigma_data=0.5, time_scale=1.0))
    assert spec.class_names == ("0", "1", "2")
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], weights[name]) for name in weights)
    network.load_state_dict(weights)
    x, t, labels = noise(2, 3, 8, 8), torch.tensor([0.5, 9.0]), torch.tensor([2, 0])
    torch.testing.assert_close(load_model(file)(x, t, labels), published_denoiser(network, x, t, labels))


def published_denoiser(network, x, t, labels):
    """Their preconditioning: sigma_data 0.5, and ln(sigma)/4 as the network's time."""
    s = t[:, None, None, None]
    raw = network(x / (0.25 + s**2).sqrt(), t.log() / 4, labels)
    return 0.25 / (s**2 + 0.25) * x + s * 0.5 / (s**2 + 0.25).sqrt() * raw


def test_a_file_of_another_name_has_the_column_of_its_run(tmp_path):
    file = tmp_path / "mine.safetensors"
    weights = network_of(TINY).state_dict()
    save_file(weights, file)
    with pytest.raises(UserError, match="has an unknown column; name the file like EDM2's"):
        read_model(file)
    diffusion = Diffusion(boundary="none", column=TrigFlow())
    assumed = ModelSpec(network=TINY, diffusion=diffusion, shape=SHAPE, class_names=("a", "b", "c"))
    spec, _ = read_model(file, assumed)
    assert (spec.network, spec.diffusion, spec.shape) == (TINY, diffusion, SHAPE)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"enc.8x12_conv.weight": None}, "is not one of EDM2's networks .*8x12_conv"),
        ({"dec.4x6_in0.conv_res0.weight": None}, "it lacks dec.4x6_in0.conv_res0.weight"),
        ({"dec.4x6_in0.emb_gain": torch.ones(2)}, r"emb_gain is \(2,\) there and \(\) here"),
        ({"enc.8x12_block0.conv_res1.weight": torch.ones(7, 8, 3, 3)}, r"widths \[7, 16\]"),
    ],
)
def test_a_file_that_is_damaged_is_refused_by_the_name_of_the_tensor(change, sentence, tmp_path):
    weights = network_of(TINY).state_dict() | change
    file = tmp_path / "edm2-mine.safetensors"
    save_file({name: tensor for name, tensor in weights.items() if tensor is not None}, file)
    with pytest.raises(UserError, match=sentence):
        read_model(file, ModelSpec(network=TINY, diffusion=Diffusion(), shape=SHAPE))


def test_classes_get_other_numbers():
    """To rounding, since the weights of all classes are normalised together."""
    spec = ModelSpec(network=TINY, diffusion=Diffusion(), shape=SHAPE, class_names=("a", "b", "c"))
    model = Model(spec).eval()
    model.network.load_state_dict(network_of().state_dict())
    moved = renumbered(model, (2, 0, 1), ("c", "a", "b"))
    x, t = noise(3, *SHAPE), torch.tensor([0.5, 2.0, 9.0])
    found, wanted = moved(x, t, torch.tensor([0, 1, 2])), model(x, t, torch.tensor([2, 0, 1]))
    torch.testing.assert_close(found, wanted)
