"""Connecting to a Ray cluster and planning its resources.

This room holds what every job of the cluster needs.
"""
