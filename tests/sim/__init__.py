"""Simulated worlds: what they check, what scenarios make of them, what a run leaves behind."""
