"""Zero-shot image editing: the algorithm, the tasks, the files and the results.

A new editing task belongs here. The command, the page and the served model call this room; running it on a
cluster is `cm_ray.cluster.editing`.
"""
