"""Pair worlds: two homes behind NATs of given kinds, and whether their nodes reach each other."""
