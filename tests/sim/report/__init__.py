"""Tests of `overlay.sim.report.report`."""
