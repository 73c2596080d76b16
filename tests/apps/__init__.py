"""Applications, on the public API alone."""
