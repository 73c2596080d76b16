"""Tests of `overlay.sim.network.nat`."""
