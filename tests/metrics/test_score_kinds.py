"""Every kind is measured as by its own function, from what it says that it needs, or refused early."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cm_ray.errors import UserError
from cm_ray.metrics import score_kinds
from cm_ray.metrics.extrapolation import frechet_infinity
from cm_ray.metrics.frechet import FrechetReference, frechet_of_features, frechet_of_groups
from cm_ray.metrics.inception_score import inception_score
from cm_ray.metrics.kernel import kernel_distance
from cm_ray.metrics.manifold import precision_and_recall
from cm_ray.metrics.score import COMPARED, DESCRIPTIVE, KINDS, Score
from cm_ray.metrics.score_kinds import NEEDS, SampleSet, check_kinds, estimate_all
from cm_ray.metrics.sliced import sliced_wasserstein
from cm_ray.metrics.statistics import FeatureStatistics

N, D = 200, 4
KEY = dict.fromkeys((*COMPARED, *DESCRIPTIVE), 0)


class Plain:
    """An extractor that does not classify: the first pixels are the features."""

    name, dim, weights_sha256, preprocess = "plain", D, "", "none"

    def features(self, images):
        return images.flatten(1)[:, :D].float()


class Classifying(Plain):
    name = "classifying"

    def logits_of(self, features):
        return features / 50


def images(n=N, seed=0, top=256):
    return torch.randint(
        0, top, (n, 1, 3, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8
    )


def whole(pictures, groups):
    features = Plain().features(pictures)
    parts = [FeatureStatistics.of(part) for part in features.tensor_split(groups)]
    return SampleSet(groups=parts, features=features, images=pictures)


@pytest.fixture(scope="module")
def samples():
    return whole(images(top=200), groups=20)


@pytest.fixture(scope="module")
def reference():
    return whole(images(300, seed=1), groups=1)


def test_the_table_has_every_kind():
    assert set(NEEDS) == set(KINDS)
    assert NEEDS["FD"] == "statistics"
    assert NEEDS["SWD"] == "images"
    assert {NEEDS[kind] for kind in ("FDinf", "KID", "IS", "precision", "recall")} == {"features"}


def test_each_kind_is_what_its_own_function_measures(samples, reference):
    measured = estimate_all(list(KINDS), samples, reference, Classifying(), seed=3)
    x, y, seed = samples.features, reference.features, 3
    fixed = FrechetReference.of(reference.groups[0])
    assert list(measured) == list(KINDS)
    assert measured["FD"] == frechet_of_features(x, fixed)
    assert measured["FDinf"] == frechet_infinity(x, fixed, seed=seed)
    assert measured["KID"] == kernel_distance(x, y, seed=seed)
    assert measured["IS"] == inception_score(x / 50, seed=seed)
    assert (measured["precision"], measured["recall"]) == precision_and_recall(x, y, seed=seed)
    pixels = (each.images.flatten(1).float() / 127.5 - 1 for each in (samples, reference))
    sliced = sliced_wasserstein(*pixels, seed=seed)
    assert measured["SWD"].value == pytest.approx(sliced.value, rel=1e-6)
    assert measured["SWD"].settings == {**sliced.settings, "of": "pixels"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_needs_no_more_than_it_says(kind, samples, reference):
    field = {"statistics": "groups"}.get(NEEDS[kind], NEEDS[kind])
    x, y = (SampleSet(**{field: getattr(each, field)}) for each in (samples, reference))
    alone = estimate_all([kind], x, y, Classifying())
    together = estimate_all([kind], samples, reference, Classifying())
    assert alone[kind].value == pytest.approx(together[kind].value, rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_part_is_said(kind, samples, reference):
    part = "groups" if kind == "FD" else NEEDS[kind]
    with pytest.raises(ValueError, match=f"needs the samples' {part}"):
        estimate_all([kind], SampleSet(), reference, Classifying())
    if kind != "IS":
        with pytest.raises(ValueError, match="needs the reference's"):
            estimate_all([kind], samples, SampleSet(), Classifying())


def test_the_inception_score_needs_no_reference(samples):
    assert estimate_all(["IS"], samples, SampleSet(), Classifying())["IS"].value > 1


def test_precision_and_recall_come_of_one_manifold(samples, reference, monkeypatch):
    calls = []

    def counted(*arguments, **settings):
        calls.append(arguments)
        return precision_and_recall(*arguments, **settings)

    monkeypatch.setattr(score_kinds, "precision_and_recall", counted)
    both = estimate_all(["recall", "precision"], samples, reference, Plain())
    assert list(both) == ["recall", "precision"]
    assert len(calls) == 1
    assert list(estimate_all(["recall"], samples, reference, Plain())) == ["recall"]


def test_the_references_root_is_made_once(samples, reference, monkeypatch):
    fresh = SampleSet(groups=reference.groups)
    first = estimate_all(["FD", "FDinf"], samples, fresh, Plain())
    monkeypatch.setattr(FrechetReference, "of", lambda statistics: pytest.fail("made again"))
    assert estimate_all(["FD"], samples, fresh, Plain())["FD"] == first["FD"]


def test_a_group_more_or_less_changes_errors_only(samples, reference):
    whole = SampleSet(groups=samples.groups)
    halves = SampleSet(groups=[FeatureStatistics.of(part) for part in samples.features.split(100)])
    parts = SampleSet(groups=[FeatureStatistics.of(part) for part in reference.features.split(50)])
    measured = estimate_all(["FD"], halves, parts, Plain())["FD"]
    expected = estimate_all(["FD"], whole, reference, Plain())["FD"]
    assert measured.value == pytest.approx(expected.value, rel=1e-10)
    assert measured.error != pytest.approx(expected.error, rel=1e-3)
    assert expected == frechet_of_groups(samples.groups, reference.frechet)


def test_what_cannot_be_measured_is_refused_before_there_are_samples(samples, reference):
    with pytest.raises(UserError, match="no score 'FID'; choose from FD, FDinf, KID, SWD, IS, precision"):
        check_kinds(["FD", "FID"], Plain())
    with pytest.raises(UserError, match="IS needs an extractor that classifies, and plain does not"):
        check_kinds(["IS"], Plain())
    with pytest.raises(UserError, match="49 samples are not more than 10 x 4 features"):
        check_kinds(["FDinf"], Plain(), 49)
    check_kinds(["FDinf"], Plain(), 50)
    check_kinds(KINDS, Classifying())
    check_kinds(KINDS, Classifying(), 50, 8)
    for kinds in (["FID"], ["FD", "IS"]):
        with pytest.raises(UserError, match=r"choose|classifies"):
            estimate_all(kinds, samples, reference, Plain())


MIN_COUNTS = {
    "FD": (2, 2),
    "KID": (4, 4),
    "SWD": (2, 2),
    "IS": (20, 0),
    "precision": (8, 8),
    "recall": (8, 8),
}
LEAST_IMAGES = MIN_COUNTS | {"FDinf": (50, 2)}


@pytest.mark.parametrize("kind", LEAST_IMAGES)
def test_the_least_counts_are_those_that_can_be_measured(kind):
    """One fewer is refused with and without samples; of the least, what is measured is finite."""
    n, m = LEAST_IMAGES[kind]
    check_kinds([kind], Classifying(), n, m)
    samples, reference = whole(images(n), groups=2), whole(images(max(m, 2), 1), groups=1)
    found = estimate_all([kind], samples, reference, Classifying())[kind]
    assert Score(kind=kind, value=found.value, error=found.error, key=KEY).value == found.value
    too_few = f"{n - 1} samples are not|{kind} needs at least {n} samples, not {n - 1}"
    with pytest.raises(UserError, match=too_few):
        check_kinds([kind], Classifying(), n - 1)
    few = SampleSet(features=whole(images(n - 1), 1).features, images=images(n - 1))
    with pytest.raises(UserError):
        estimate_all([kind], few, whole(images(50, 1), groups=1), Classifying())
    if m:
        expected = f"{kind} needs at least {m} images in the reference, not {m - 1}; take more"
        with pytest.raises(UserError, match=expected):
            check_kinds([kind], Classifying(), None, m - 1)


class LargestTensor(TorchDispatchMode):
    """Notes the bytes of the largest tensor that is made."""

    bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for each in made if isinstance(made, (tuple, list)) else [made]:
            if isinstance(each, torch.Tensor):
                self.bytes = max(self.bytes, each.numel() * each.element_size())
        return made


def test_sliced_distances_of_pixels_never_hold_all_images_as_floats():
    generator = torch.Generator().manual_seed(0)
    both = torch.randint(0, 256, (4000, 3, 32, 32), dtype=torch.uint8, generator=generator)
    x, y = both.split(2000)
    with LargestTensor() as largest:
        estimate_all(["SWD"], SampleSet(images=x), SampleSet(images=y), Plain())
    assert x.nbytes <= largest.bytes < 2.1 * x.nbytes  # floats are 4 times as large


def test_images_of_other_sizes_do_not_compare(samples):
    other = SampleSet(images=torch.zeros(9, 9, 1, 1, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"images \(200, 1, 3, 3\) and \(9, 9, 1, 1\) cannot be compared"):
        estimate_all(["SWD"], samples, other, Plain())
