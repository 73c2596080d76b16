"""Tests of `overlay.core.connect`."""
