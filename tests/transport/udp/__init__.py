"""Tests of `overlay.transport.udp.sockets`."""
