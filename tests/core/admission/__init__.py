"""Tests of `overlay.core.admission`."""
