"""Tests of `overlay.core.gossip`."""
