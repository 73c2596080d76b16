"""Tests of `overlay.sim.pairs`."""
