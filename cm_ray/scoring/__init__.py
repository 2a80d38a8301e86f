"""Scoring a model against a data set: reference statistics, scores while training, tables of scores.

How scores are obtained for a model belongs here. How a score is computed from features is `cm_ray.metrics`;
scoring with actors of a cluster is `cm_ray.cluster`.
"""
