"""Sweeps: a scenario with many values and seeds, on many processes."""
