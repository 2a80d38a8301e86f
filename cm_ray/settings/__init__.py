"""Settings as trees of frozen dataclasses: choices among classes, dotted paths, JSON.

A setting is a field of a dataclass, and some fields are choices among several dataclasses (a distance, a
method). This room knows how to name, change, save and compare such trees; the settings themselves are the
dataclasses of the rooms that read them, and `cm_ray.recipes.recipe.Recipe` is the whole tree.
"""
