"""Tests of `overlay.cli`."""
