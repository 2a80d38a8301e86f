"""Feature extractors: networks that turn images into the vectors that scores are computed from.

A new extractor is a file here and a name in `registry`; the protocol is in `extractor`. Scores that are
computed from features belong to `cm_ray.metrics`.
"""
