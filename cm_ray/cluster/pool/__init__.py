"""A pool of warm actors that sample and extract features, and the cache of their results."""
