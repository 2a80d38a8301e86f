"""The null class: a zero vector in every family, without weights of its own."""

import dataclasses

import pytest
import torch

from cm_ray.core.guidance import NULL_LABEL
from cm_ray.drawing.model_labels import draw_in_words, label_draw
from cm_ray.drawing.requests import Request, sample_all
from cm_ray.errors import SettingError, UserError
from cm_ray.networks.architectures import ADM
from cm_ray.networks.custom import Custom
from cm_ray.networks.formats.export import export_model
from cm_ray.networks.formats.reading import load_model
from cm_ray.networks.model import Model, ModelSpec, save_model
from cm_ray.networks.renumbering import renumbered
from cm_ray.sampling.labels import LabelDraw
from cm_ray.sampling.samplers import OneStep
from tests.networks.test_two_time_models import NETWORKS, ONE
from tests.networks.test_unet import trained_like

NAMES = ("cat", "dog", "eel")


def spec(name="adm", share=0.25):
    network = dataclasses.replace(NETWORKS[name], conditional=True, label_dropout=share)
    return dataclasses.replace(ONE, network=network, class_names=NAMES)


def model(of):
    torch.manual_seed(0)
    made = Model(of)
    trained_like(made.network)
    return made.eval()


def answers(made, *labels):
    x = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(2)).repeat(len(labels), 1, 1, 1)
    with torch.no_grad():
        return made(x, torch.full((len(labels),), 2.0), torch.tensor(labels))


@pytest.mark.parametrize("name", NETWORKS)
def test_it_has_no_weights_and_changes_no_class(name):
    with_null, without = model(spec(name)), model(spec(name, 0.0))
    assert with_null.network.state_dict().keys() == without.network.state_dict().keys()
    without.network.load_state_dict(with_null.network.state_dict())
    assert torch.equal(answers(with_null, 0, 2), answers(without, 0, 2))
    with pytest.raises(IndexError):
        answers(without, NULL_LABEL)


@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_the_zero_vector(name):
    made = model(spec(name))
    null, other = answers(made, NULL_LABEL), answers(made, 1)
    assert (null - other).abs().max() > 1e-3
    with torch.no_grad():
        made.network.label_emb.weight.zero_()
    torch.testing.assert_close(answers(made, 1), null)


@pytest.mark.parametrize("how", ["folder", "safetensors"])
def test_it_goes_to_files_and_back(how, tmp_path):
    made, path = model(spec()), tmp_path / "model"
    if how == "folder":
        save_model(path, made.spec, made.network.state_dict())
    else:
        path = export_model(made, "safetensors", path)
    back = load_model(path)
    assert back.spec.null_class
    assert back.spec == made.spec
    assert torch.equal(answers(back, NULL_LABEL, 1), answers(made, NULL_LABEL, 1))


def test_it_is_exported_as_a_program_and_stays_when_classes_are_renumbered(tmp_path):
    made = model(spec())
    turned = renumbered(made, [1, 0, 2], ("dog", "cat", "eel"))
    assert torch.equal(answers(turned, NULL_LABEL, 0), answers(made, NULL_LABEL, 1))
    program = torch.export.load(export_model(made, "torch", tmp_path / "model")).module()
    noise, labels = torch.randn(2, 1, 8, 8), torch.tensor([NULL_LABEL, 2])
    with torch.no_grad():
        ours = made(80 * noise, torch.full((2,), 80.0), labels).clamp(-1, 1)
        torch.testing.assert_close(program(noise, labels), ours, rtol=1e-4, atol=1e-5)


def test_samples_without_a_class_are_drawn_where_it_was_trained():
    made = model(spec())
    for asked in ("null", -1):
        draw = label_draw(made.spec, asked)
        assert draw == LabelDraw.null(3)
        assert draw.text == "null"
    assert draw_in_words(made.spec, draw) == "All samples are of the null class."
    request = Request(count=3, seed=1, sampler=OneStep(), labels=draw)
    images, labels = sample_all(made, request)
    assert labels.tolist() == [NULL_LABEL] * 3
    assert request.drawn_classes(made.spec) == ["null"] * 3
    other, _ = sample_all(made, dataclasses.replace(request, labels=label_draw(made.spec, "eel")))
    assert not torch.equal(images, other)
    for share in (spec(share=0.0), dataclasses.replace(ONE)):
        with pytest.raises(UserError, match=r"no null class|without classes"):
            label_draw(share, "null")


def test_shares_out_of_range_are_refused():
    with pytest.raises(SettingError, match="label_dropout"):
        ADM(conditional=True, label_dropout=1.0)
    with pytest.raises(SettingError, match="label_dropout is of networks with labels"):
        ADM(label_dropout=0.1)
    with pytest.raises(SettingError, match="label_dropout"):
        Custom(path="a:B", label_dropout=0.1)


def test_a_model_of_before_has_none():
    assert not dataclasses.replace(ONE, class_names=NAMES).null_class
    assert isinstance(ONE, ModelSpec)
