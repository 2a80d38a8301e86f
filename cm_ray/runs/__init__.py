"""The files of a run on disk: its directory, its log, its checkpoints and its lineage.

Files that a run is continued from belong here, and showing its log on the terminal. Writing any file safely
is `cm_ray.storage`.
"""
