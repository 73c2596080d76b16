"""Tests of `overlay.transport.sctp.association`."""
