"""Applications on top of the public API."""
