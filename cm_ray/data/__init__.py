"""Images: sources in all forms, storage as shards, loading into memory, and the order of training.

The files here open data of any form: by name or path, in memory, as a survey. The rooms below read what is
opened: `tables`, `layouts`, `pictures`, data sets by name, `shards`. Nothing here imports Ray: reading on a
cluster is `cm_ray.cluster.data`. Samples of models and feature statistics of images belong to other rooms.
"""
