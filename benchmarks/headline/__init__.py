"""The headline measurement: teacher and students at full size, on one GPU; `python -m benchmarks.headline`."""
