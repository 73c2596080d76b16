"""Paths through others' links: a place kept for what follows."""
