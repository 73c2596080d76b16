"""The tests; `tests.lab` and `tests.builds` are the tools that they share with the demos."""
