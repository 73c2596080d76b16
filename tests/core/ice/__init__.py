"""Tests of `overlay.core.ice.agent`."""
