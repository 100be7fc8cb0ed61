"""Benchmarks of speed, memory and quality. Each appends rows to `results/`; docs/benchmarks.md shows them as tables."""
