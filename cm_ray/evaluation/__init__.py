"""Scoring a model against a data set: scorers, reference statistics, the end of a run, tables of scores.

The computation of a score from features is in `cm_ray.metrics`; scoring with the actors of a cluster is in
`cm_ray.cluster`.
"""
