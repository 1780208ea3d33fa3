"""The queue of recipes that are measured on real CIFAR: see ``python -m benchmarks.measure --help``."""
