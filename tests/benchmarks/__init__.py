"""Measurements, each beside its yardstick; `ci/benchmarks` prints them. Not tests: nothing here fails."""
