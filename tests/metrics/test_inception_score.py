"""The Inception score against its definition and its extremes."""

import math

import pytest
import torch

from cm_ray.errors import UserError
from cm_ray.metrics.inception_score import inception_score


def logits(n, classes=10, seed=0, sharp=3.0):
    return sharp * torch.randn(n, classes, generator=torch.Generator().manual_seed(seed))


def definition(logits):
    p = [[math.exp(z) for z in row] for row in logits.tolist()]
    p = [[value / sum(row) for value in row] for row in p]
    marginal = [sum(row[c] for row in p) / len(p) for c in range(len(p[0]))]
    divergences = [sum(v * math.log(v / q) for v, q in zip(row, marginal, strict=True)) for row in p]
    return math.exp(sum(divergences) / len(p))


def test_it_is_the_definition():
    x = logits(60)
    assert inception_score(x, splits=1).value == pytest.approx(definition(x), rel=1e-6)


@pytest.mark.filterwarnings("ignore::UserWarning:torchmetrics")  # of its memory, and one split's deviation
def test_it_is_torchmetrics(image_metrics):
    """The score takes the network as given: here images are logits. It averages over as many splits."""
    x = logits(60).double()
    theirs = image_metrics.inception.InceptionScore(torch.nn.Identity(), splits=1)
    theirs.update(x)
    assert inception_score(x, splits=1).value == pytest.approx(float(theirs.compute()[0]), rel=1e-8)


def test_two_kinds_of_sample_have_the_closed_form():
    """A share of samples is surely of class 0, the others of either: exp(H(marginal) - H(conditional))."""
    share = 0.3
    x = torch.tensor([[1e4, 0.0]] * 30 + [[0.0, 0.0]] * 70)
    p = share + (1 - share) / 2
    entropy = -p * math.log(p) - (1 - p) * math.log(1 - p)
    expected = math.exp(entropy - (1 - share) * math.log(2))
    assert inception_score(x, splits=1).value == pytest.approx(expected, rel=1e-6)


def test_splits_are_averaged():
    """Copies of one sample score 1 in any split; two classes in turn score 2 whichever way they are split."""
    assert inception_score(logits(1).expand(40, -1)).value == pytest.approx(1, rel=1e-6)
    halves = torch.eye(2).repeat(50, 1) * 1e4
    assert inception_score(halves, splits=1).value == pytest.approx(2)
    assert 1.5 < inception_score(halves, splits=5).value < 2
    assert inception_score(halves, splits=5).settings == {"splits": 5, "split_seed": 0}


def test_extremes_are_1_and_the_number_of_classes():
    assert inception_score(torch.zeros(40, 10)).value == pytest.approx(1)
    certain = torch.eye(10).repeat(20, 1) * float("1e4")
    assert inception_score(certain, splits=1).value == pytest.approx(10)


def test_the_error_is_that_of_repeated_experiments():
    scores = [inception_score(logits(300, seed=seed), splits=1, replicates=100) for seed in range(40)]
    deviation = torch.tensor([score.value for score in scores]).std()
    assert scores[0].error == pytest.approx(float(deviation), rel=0.4)


@pytest.mark.parametrize("n", [50, pytest.param(100, marks=pytest.mark.exhaustive)])
def test_the_error_of_few_samples_a_split_is_finite_and_that_of_repeated_experiments(n):
    scores = [inception_score(logits(n, seed=seed), replicates=100) for seed in range(60)]
    deviation = torch.tensor([score.value for score in scores]).std()
    mean = sum(score.error for score in scores) / len(scores)
    assert mean == pytest.approx(float(deviation), rel=0.3)


def test_the_fewest_samples_have_an_error():
    errors = [inception_score(logits(20, seed=seed)).error for seed in range(20)]
    assert all(math.isfinite(error) and error > 0 for error in errors)


def test_too_few_samples_are_refused():
    with pytest.raises(UserError, match="at least 20 images"):
        inception_score(logits(15))
