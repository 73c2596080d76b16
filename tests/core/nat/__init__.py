"""Tests of `overlay.core.nat`."""
