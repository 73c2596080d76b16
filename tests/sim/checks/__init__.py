"""Tests of `overlay.sim.checks.invariants`."""
