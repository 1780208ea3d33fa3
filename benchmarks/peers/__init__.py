"""One distillation step in distill and in other frameworks: ``python -m benchmarks.peers [--json]``."""
