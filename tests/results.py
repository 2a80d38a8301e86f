"""The results of a finished run, as a training writes them, and scores."""

from cm_ray.metrics.score import Score, score_key


def result(*scores, **changes):
    """Return the content of a result.json with these rows of scores."""
    return {
        "name": "run",
        "steps": 1,
        "model_step": 1,
        "average": {"kind": "constant", "ema_length": 0.0, "initial_share": 0.0},
        "scores": list(scores),
        "class_shares": None,
        "clipped_noise": 9.0,
        "timings": {"training_s": 1.0, "images_per_s": 1.0, "sampling_and_scoring_s": 1.0},
        "paths": {"model": "model", "samples": []},
    } | changes


class FakeExtractor:
    name, dim, weights_sha256, preprocess = "digits", 64, "ab" * 32, "none"


def score(value=1.0, **changes):
    settings = {
        "n": 1797,
        "seed": 0,
        "reference": "cd" * 32,
        "labels": "data",
        "sampler": "one-step",
        "nfe": 1,
        "precision": "float32",
    } | changes
    return Score(value=value, key=score_key(FakeExtractor(), **settings))
