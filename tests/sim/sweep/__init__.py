"""Tests of `overlay.sim.sweep.sweep`."""
