"""Reading and writing files safely: every write goes aside and is renamed, every download is checked.

Places to store data belong here. What the files of a run mean is `cm_ray.runs`.
"""
