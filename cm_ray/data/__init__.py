"""Images: sources in all forms, storage as shards, loading into memory, and the order of training.

A new kind of data set or file is a source here. Nothing here imports Ray: reading on a cluster is
`cm_ray.cluster.data`. Samples of models and feature statistics of images belong to other rooms.
"""
