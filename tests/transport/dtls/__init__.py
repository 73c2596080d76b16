"""Tests of `overlay.transport.dtls.association`."""
