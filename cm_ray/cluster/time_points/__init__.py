"""The search for time points, with samples and scores from a cluster."""
