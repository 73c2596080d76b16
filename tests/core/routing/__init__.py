"""Tests of `overlay.core.routing.routing`."""
