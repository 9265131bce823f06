"""ltbench: a benchmark suite for long-tailed image classification, built around medical images."""

__version__ = "0.1.0"
