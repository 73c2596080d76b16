"""Reports of a run: a page with its plots."""
