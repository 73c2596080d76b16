"""Circuits: paths through others' links, asked for (`circuits`) and served (`serving`)."""
