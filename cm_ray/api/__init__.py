"""The Python interface: training, loading, sampling, editing, scoring and exporting in a few words.

`cm_ray` itself lends these names (``import cm_ray as cm``). Code that computes belongs in the other rooms;
this one only puts them together for a notebook or a script, without Ray.
"""
