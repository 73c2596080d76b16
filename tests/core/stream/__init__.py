"""Tests of `overlay.core.stream.stream`."""
