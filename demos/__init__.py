"""Demonstrations: each plays one claim with real processes, and exits 0 only if all of it held."""
