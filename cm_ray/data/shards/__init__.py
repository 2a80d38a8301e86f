"""Shards: their files, their manifest, the order in which a training reads them.

Making them on a cluster is in `cm_ray.cluster.data`.
"""
