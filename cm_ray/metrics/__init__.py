"""Scores of samples: features, their statistics, the Fréchet distance, and keys that say what they mean."""
