"""Benchmarks of Dionysus: `python -m benchmarks NAME [--json FILE]`. Only their figures are quoted in the docs."""
