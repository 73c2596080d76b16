"""Application streams over one link: credit, turns, frames."""
