"""Measurements of speed, each against what one would use otherwise; see benchmarks/README.md."""
