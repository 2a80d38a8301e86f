"""cm_ray: train, tune and use consistency models on one machine or a Ray cluster."""

__version__ = "0.1.0"
