"""Scenarios: worlds written down in TOML, run, traced and measured."""
