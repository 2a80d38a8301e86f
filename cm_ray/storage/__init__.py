"""Safe reading and writing of files: atomic writes, locks, checked downloads, and places to store data.

The meaning of a run's files belongs to `cm_ray.runs`, the format of images to `cm_ray.data`.
"""
