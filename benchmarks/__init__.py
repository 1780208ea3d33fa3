"""Measurements that can be repeated: ``python -m benchmarks.<name> [--json]``."""
