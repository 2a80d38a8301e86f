"""A pool of Ray actors that sample images and extract features, and an on-disk cache of their results."""
