"""Data on a cluster: making shards in parallel, and streaming them to workers with Ray Data."""
