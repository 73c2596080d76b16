"""Tests of `overlay.node`."""
