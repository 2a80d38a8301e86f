"""Scores of samples: features, numbers computed from features, and keys that say how a number was measured.

==================  ===================================================================================
`extractors`        networks that turn images into features; `registry` opens one by name
`statistics`        count, mean and covariance of features; those of two sets can be added
`frechet`           Fréchet distance (FD), the influence of each sample on it, and its standard error
`extrapolation`     FDinf: the Fréchet distance extrapolated to infinitely many samples
`kernel`            KID, the kernel distance
`inception_score`   IS, the Inception score
`manifold`          improved precision and recall
`sliced`            SWD, the sliced Wasserstein distance
`estimate`          a number with its standard error, by bootstrap or infinitesimal jackknife
`score_kinds`       the table of all kinds of scores: the data each one needs, and its function
`score`             a number with its name and its key; scores compare only when their keys agree
==================  ===================================================================================

A new score is a file here and a line in `score_kinds` and in `score.KINDS`. Sampling on a cluster, and
reference statistics in the cache, belong to `cm_ray.cluster` and `cm_ray.evaluation`.
"""
