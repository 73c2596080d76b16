"""Tests of `overlay.transport.memory.transport`."""
