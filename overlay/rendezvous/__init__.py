"""Other ways to a first contact."""
