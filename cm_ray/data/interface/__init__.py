"""All readers of images share this: sources, batches, options, errors, words of columns and splits, classes.

It imports no other room of `cm_ray.data`. What only one kind of file needs belongs to the room of that kind.
"""
