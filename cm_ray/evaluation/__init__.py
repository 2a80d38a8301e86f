"""Scoring a model against a data set: reference statistics, scores while training, tables of scores.

The computation of a score from features is in `cm_ray.metrics`; scoring with the actors of a cluster is in
`cm_ray.cluster`.
"""
