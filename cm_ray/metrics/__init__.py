"""Scores of samples: features, what is computed from them, and keys that say what the numbers mean.

extractors     the protocol, and opening one by name: inception, cifar_resnet, digits, own
weights        published weights: where they are found, and how they are checked
statistics     moments of features as a monoid
frechet        Fréchet distance, its influences and its error; extrapolation: FD-infinity
kernel, inception_score, manifold, sliced    KID; IS; precision and recall; sliced Wasserstein
measured       a number with its standard error: bootstrap, infinitesimal jackknife
measures       every kind from one place: what it needs, and measuring it
score          a number with its name and its whole key
"""
