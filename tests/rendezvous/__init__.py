"""Tests of `overlay.rendezvous`."""
