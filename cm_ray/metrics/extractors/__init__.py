"""Feature extractors: networks that turn images into the vectors that scores are computed from.

A new extractor is a file here and a name in `registry`. Scores that are computed from features are in
`cm_ray.metrics`.
"""
