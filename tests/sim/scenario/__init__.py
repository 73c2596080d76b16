"""Tests of `overlay.sim.scenario.scenario`."""
