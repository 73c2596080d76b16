"""Seeded worlds that drive the unchanged core."""
