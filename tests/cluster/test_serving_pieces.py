"""Requests that are made together: each image has the bits that it has alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cm_ray.api.trained_model import TrainedModel
from cm_ray.cluster.serving.pieces import Piece, filled_up, images_of, made_together
from cm_ray.cluster.serving.row_counts import equal_counts
from cm_ray.core.diffusion import Diffusion
from cm_ray.core.noise import Purpose, normal
from cm_ray.core.precondition import Linear
from cm_ray.editing.tasks import plan_edit
from cm_ray.errors import UserError
from cm_ray.networks.formats.reading import load_model
from cm_ray.sampling.samplers import Heun, Jumps, Multistep, OneStep
from tests.cluster.tiny import NETWORK, save_tiny

MOST = 16
IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (MOST, 1, 8, 8), dtype=np.uint8))
MASK = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
MASK[..., :4] = True


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(
        save_tiny(tmp_path_factory.mktemp("m") / "m", network=replace(NETWORK, conditional=True))
    )


@pytest.fixture(scope="module")
def counts(model):
    return equal_counts(model, MOST)


def samples(model, plan, seed, first, count, label):
    """Return a piece, and what the Python interface makes for it in batches of MOST."""
    indices = torch.arange(first, first + count)
    piece = Piece(plan=plan, seed=seed, indices=indices, labels=torch.full((count,), label))
    made = TrainedModel(model).sample(
        MOST, sampler=plan, seed=seed, first=first, label=str(label), batch_size=MOST
    )
    return piece, made.tensor()[:count]


def edits(model, seed, count, label, mask=None, **settings):
    spec = model.spec
    piece = Piece(
        plan=plan_edit(diffusion=spec.diffusion, shape=spec.shape, **settings),
        seed=seed,
        indices=torch.arange(count),
        labels=torch.full((count,), label),
        images=IMAGES[:count],
        masks=None if mask is None else mask.expand(count, 1, 8, 8),
    )
    pictures = IMAGES.movedim(1, -1).numpy()
    mask = None if mask is None else mask[0, 0].numpy()
    made = TrainedModel(model).edit(images=pictures, seed=seed, label=str(label), mask=mask, **settings)
    return piece, made.tensor()[:count]


@pytest.fixture(scope="module")
def asked(model):
    """Pieces of many kinds, and what each must become."""
    two = Multistep((2.0,))
    return [
        samples(model, OneStep(), 0, 0, 1, 7),
        samples(model, two, 3, 5, 2, 7),
        samples(model, two, 8, 0, 9, 1),
        samples(model, OneStep(), 1, 4, 3, 2),
        samples(model, two, 3, 5, 16, 0),
        edits(model, 0, 2, 3, MASK, task="inpaint", steps=3),
        edits(model, 4, 1, 5, MASK, task="inpaint", steps=3),
        edits(model, 2, 3, 4, task="upscale", factor=4, taus=(80.0, 1.0)),
        edits(model, 2, 2, 4, task="denoise", sigma=0.5),
        edits(model, 5, 1, 9, task="stroke"),
    ]


def test_what_is_made_together_is_what_the_model_makes_bit_for_bit(model, counts, asked):
    pieces = [piece for piece, _ in asked]
    together = made_together(model, pieces, counts)
    backwards = made_together(model, pieces[::-1], counts)[::-1]
    for (piece, expected), made, again in zip(asked, together, backwards, strict=True):
        (alone,) = made_together(model, [piece], counts)
        for found in (made, again, alone):
            assert found.dtype == torch.uint8
            assert torch.equal(found, expected)


def test_requests_share_network_calls(model, counts, asked, monkeypatch):
    calls = []
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda *a: calls.append(len(a[0])) or forward(*a))
    pieces = [piece for piece, _ in asked if isinstance(piece.plan, Multistep)][:2]
    made_together(model, pieces, counts)
    assert images_of(pieces) == 11
    assert calls == [MOST, MOST], "one call of the least equal size for each of two steps"


def test_equal_bits_of_floats_whatever_the_company(model, counts):
    """Rounding that bytes hide is seen here."""
    x = 80.0 * normal(0, 0, torch.arange(MOST), Purpose.SAMPLE, (1, 8, 8))
    t, labels = torch.full((MOST,), 80.0), torch.arange(MOST) % 10
    with torch.no_grad():
        whole = model(x, t, labels)
        for rows in ([3], [5, 0], [9, 8, 7, 6, 2], [*range(15)]):
            part = filled_up(model, labels[rows], counts)(x[rows], t[rows])
            assert torch.equal(part, whole[rows])


def test_more_images_than_a_call_takes_are_cut(model, counts):
    indices = torch.arange(2 * MOST + 3)
    piece = Piece(plan=OneStep(), seed=1, indices=indices, labels=torch.zeros_like(indices))
    (made,) = made_together(model, [piece], counts)
    expected = TrainedModel(model).sample(3 * MOST, seed=1, label="0", batch_size=MOST).tensor()
    assert torch.equal(made, expected[: len(indices)])


@pytest.mark.parametrize("conditional", [False, True])
def test_jumps_of_two_times_are_those_of_the_model(conditional, tmp_path):
    two = Diffusion(column=Linear(), boundary="two-times")
    network = replace(NETWORK, conditional=conditional)
    model = load_model(save_tiny(tmp_path / "m", network=network, diffusion=two))
    labels = torch.ones(5, dtype=torch.int64) if conditional else None
    piece = Piece(plan=Jumps((2.0,)), seed=1, indices=torch.arange(5), labels=labels)
    (made,) = made_together(model, [piece], [MOST])
    label = "1" if conditional else None
    expected = TrainedModel(model).sample(MOST, sampler=piece.plan, seed=1, label=label, batch_size=MOST)
    assert torch.equal(made, expected.tensor()[:5])


class SizeDependent(torch.nn.Module):
    """A model whose bits depend on the size of the batch below a limit."""

    def __init__(self, spec, limit):
        super().__init__()
        self.spec, self.limit = spec, limit
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x, t, labels):
        return x + (len(x) < self.limit) * 1e-6 * len(x) + labels.reshape(-1, 1, 1, 1)


@pytest.mark.parametrize(
    ("limit", "most", "equal"),
    [
        (0, 16, (1, 2, 4, 8, 16)),
        (4, 16, (4, 8, 16)),
        (16, 16, (16,)),
        (3, 6, (4, 6)),
        (9, 1, (1,)),
    ],
)
def test_sizes_of_equal_bits_are_found(model, limit, most, equal):
    assert equal_counts(SizeDependent(model.spec, limit), most) == equal


def test_a_piece_that_is_not_finite_fails_alone(model, counts, asked, monkeypatch):
    forward = model.forward

    def damaged(x, t, labels):
        return torch.where((labels == 7).reshape(-1, 1, 1, 1), torch.nan, forward(x, t, labels))

    monkeypatch.setattr(model, "forward", damaged)
    (bad, _), _, _, (good, expected), *_ = asked
    refused, made = made_together(model, [bad, good], counts)
    assert isinstance(refused, UserError)
    assert "not finite" in str(refused)
    assert torch.equal(made, expected)


def test_pieces_that_need_too_much_memory_are_refused_together(model, counts, asked, monkeypatch):
    def full(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(model, "forward", full)
    for made in made_together(model, [piece for piece, _ in asked[:2]], counts):
        assert isinstance(made, UserError)
        assert "16 images at a time need more memory than there is; lower batch_size" in str(made)


def test_a_diffusion_model_is_sampled(tmp_path):
    diffusion = load_model(save_tiny(tmp_path / "m", diffusion=Diffusion(boundary="none"), sampler=Heun(3)))
    piece = Piece(plan=Heun(3), seed=0, indices=torch.arange(3))
    (made,) = made_together(diffusion, [piece], equal_counts(diffusion, 4))
    expected = TrainedModel(diffusion).sample(4, seed=0, batch_size=4).tensor()[:3]
    assert torch.equal(made, expected)
