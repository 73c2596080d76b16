"""Tests of `overlay.sim.network.links`."""
