"""Tests of `overlay.core.endpoint`."""
