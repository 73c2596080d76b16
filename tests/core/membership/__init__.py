"""Tests of `overlay.core.membership.membership`."""
