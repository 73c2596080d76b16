"""Protocols that are here to be compared with: no part of the product."""
