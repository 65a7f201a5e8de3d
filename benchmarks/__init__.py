"""Benchmarks: `python -m benchmarks.dense`. Each checks its answers before it times anything."""
