"""The augmentation of Karras et al. 2022, table 6: distributions, order, and what the network is told."""

import math

import pytest
import torch

from cm_ray.core.augmentation import EDMAugmentation, Flip, NoAugmentation
from cm_ray.core.noise import Purpose, uniform
from cm_ray.core.resampling import affine
from cm_ray.errors import SettingError

OFF = dict.fromkeys(
    ("horizontal_flip", "vertical_flip", "scaling", "rotation", "anisotropy", "translation"), False
)
COLUMNS = {
    "horizontal_flip": 1,
    "vertical_flip": 1,
    "scaling": 1,
    "rotation": 2,
    "anisotropy": 2,
    "translation": 2,
}


def images(count=8, size=8):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def described(count=20_000, **settings):
    """Return the numbers of many small images."""
    return EDMAugmentation(**settings)(torch.zeros(count, 1, 2, 2), 0, 0, torch.arange(count))[1]


def close(found, expected, deviation, count):
    """Compare a mean with what is expected, within 4 standard errors."""
    assert abs(float(found) - expected) < 4 * deviation / math.sqrt(count)


def test_nothing_and_flips_tell_the_network_nothing():
    x, positions = images(), torch.arange(8)
    same, told = NoAugmentation()(x, 0, 0, positions)
    assert same is x
    assert told is None
    flipped, told = Flip()(x, 5, 3, positions)
    assert told is None
    coins = uniform(5, 3, positions, Purpose.FLIP, (1,))[:, 0] < 0.5
    assert 0 < coins.sum() < 8
    for before, after, coin in zip(x, flipped, coins, strict=True):
        assert torch.equal(after, before.flip(-1) if coin else before)


def test_probability_zero_leaves_the_flip_alone_bit_for_bit():
    x, positions = images(), torch.arange(8)
    after, told = EDMAugmentation(probability=0.0)(x, 5, 3, positions)
    flipped, _ = Flip()(x, 5, 3, positions)
    assert torch.equal(after, flipped)
    assert not told[:, 1:].any()
    assert torch.equal(told[:, 0] > 0, (after != x).flatten(1).any(1))
    same, told = EDMAugmentation(probability=0.0, horizontal_flip=False)(x, 5, 3, positions)
    assert torch.equal(same, x)
    assert told.shape == (8, 8)
    assert not told.any()


def test_images_without_a_transformation_have_their_bits_and_zeros():
    x, positions = images(400, 4), torch.arange(400)
    after, told = EDMAugmentation(probability=0.3)(x, 0, 0, positions)
    untold = ~told.any(1)
    assert 20 < untold.sum() < 200
    assert torch.equal(after[untold], x[untold])
    assert (after != x).flatten(1).any(1)[~untold].all()


def test_parts_of_a_batch_get_what_the_whole_gets():
    x, positions = images(8, 6), torch.arange(8)
    whole, told = EDMAugmentation(probability=0.8)(x, 1, 7, positions)
    for part in (slice(0, 4), slice(4, 8), slice(3, 4)):
        some, of_these = EDMAugmentation(probability=0.8)(x[part], 1, 7, positions[part])
        torch.testing.assert_close(some, whole[part], rtol=1e-5, atol=1e-5)
        assert torch.equal(of_these, told[part])
    other, _ = EDMAugmentation(probability=0.8)(x, 1, 8, positions)
    assert not torch.equal(other, whole)


def test_the_numbers_have_the_distributions_of_table_6():
    p, count = 0.3, 20_000
    mirrored, upside_down, size, cosine, sine, along, across, right, down = described(probability=p).T
    close(mirrored.mean(), 0.5, 0.5, count)
    close(upside_down.mean(), p / 2, 0.5, count)
    assert {0.0, 1.0} == {*mirrored.unique().tolist()} == {*upside_down.unique().tolist()}
    for each in (size, sine, right, down, along):
        close((each != 0).float().mean(), p, 0.5, count)
    assert torch.equal(right != 0, down != 0), "a translation is to both sides"
    for each in (size, right, down):
        chosen = each[each != 0]
        close(chosen.mean(), 0, 1, len(chosen))
        close(chosen.square().mean(), 1, math.sqrt(2), len(chosen))
    angles = torch.atan2(sine, cosine + 1)[sine != 0]
    torch.testing.assert_close(((cosine + 1) ** 2 + sine**2), torch.ones(count), rtol=0, atol=1e-5)
    close(angles.mean(), 0, math.pi / math.sqrt(3), len(angles))
    close(angles.square().mean(), math.pi**2 / 3, math.pi**2, len(angles))
    stretched = along != 0
    close((across[stretched] != 0).float().mean(), 0.5, 0.5, int(stretched.sum()))
    amounts = (along**2 + across**2)[stretched]
    close(amounts.mean(), 1, math.sqrt(2), len(amounts))
    assert abs(float(torch.corrcoef(torch.stack([size, right, sine, along]))[0, 1:].abs().max())) < 0.04


@pytest.mark.parametrize("name", COLUMNS)
def test_each_transformation_is_told_by_its_own_numbers(name):
    alone = EDMAugmentation(probability=1.0, **OFF | {name: True})
    assert alone.values == COLUMNS[name]
    without = EDMAugmentation(probability=1.0, **{name: False})
    assert without.values == 9 - COLUMNS[name]
    assert described(4, probability=1.0, **OFF | {name: True}).shape == (4, COLUMNS[name])


def matrix(drawn, h=8, w=8):
    """Return the map of table 6, homogeneous: translation · anisotropy · rotation · scaling."""
    cos, sin = math.cos, math.sin

    def rotate(angle):
        return torch.tensor([[cos(angle), -sin(angle), 0], [sin(angle), cos(angle), 0], [0, 0, 1]])

    def scale(x, y):
        return torch.diag(torch.tensor([x, y, 1.0]))

    values = {name: float(value) for name, value in drawn.items()}
    size, stretch = 2 ** (0.2 * values["size"]), 2 ** (0.2 * values["stretch"])
    move = torch.eye(3)
    move[:2, 2] = torch.tensor([values["right"] * w / 8, values["down"] * h / 8])
    stretching = rotate(-values["axis"]) @ scale(stretch, 1 / stretch) @ rotate(values["axis"])
    return move @ stretching @ rotate(-values["angle"]) @ scale(size, size)


def test_the_affine_map_is_the_product_of_table_6_and_is_undone_by_its_inverse():
    augmentation, positions = EDMAugmentation(probability=1.0), torch.arange(5)
    drawn = augmentation._drawn(0, 0, positions)
    inverse = augmentation._inverse(drawn, 8, 8)
    for k in range(5):
        forward = matrix({name: value[k] for name, value in drawn.items()})
        torch.testing.assert_close(
            torch.cat([inverse[k], torch.tensor([[0.0, 0, 1]])]) @ forward, torch.eye(3), rtol=0, atol=1e-5
        )


def test_flips_come_first_and_then_the_affine_map():
    augmentation, x, positions = EDMAugmentation(probability=1.0), images(16), torch.arange(16)
    after, told = augmentation(x, 0, 0, positions)
    inverse = augmentation._inverse(augmentation._drawn(0, 0, positions), 8, 8)
    for k in range(16):
        sides = [side for side, flip in ((-1, told[k, 0]), (-2, told[k, 1])) if flip]
        expected = affine(x[k : k + 1].flip(sides) if sides else x[k : k + 1], inverse[k : k + 1])
        torch.testing.assert_close(after[k : k + 1], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("probability", [-0.1, 1.5])
def test_impossible_settings_are_refused(probability):
    with pytest.raises(SettingError, match="probability"):
        EDMAugmentation(probability=probability)
    with pytest.raises(SettingError, match="take augmentation none"):
        EDMAugmentation(**OFF)
