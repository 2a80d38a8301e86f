"""Data sets by name: CIFAR-10 and the digits of scikit-learn."""
