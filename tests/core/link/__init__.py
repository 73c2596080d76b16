"""Tests of `overlay.core.link`."""
