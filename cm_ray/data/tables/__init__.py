"""Images in tables: Parquet files and .npz files, and their columns and arrays.

Another kind of table belongs here; words for columns are in `cm_ray.data.interface.columns`.
"""
