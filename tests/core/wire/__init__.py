"""Tests of `overlay.core.wire`."""
