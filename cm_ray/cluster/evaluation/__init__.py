"""Scoring models and images on a cluster."""
