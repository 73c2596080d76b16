"""Tests of `overlay.transport`."""
