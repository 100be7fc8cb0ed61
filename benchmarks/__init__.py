"""Measurements of speed, memory and quality: rows of JSON lines in `results/`, tables in docs/benchmarks.md."""
