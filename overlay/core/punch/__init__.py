"""Beyond ICE: direct paths past NATs that give every peer another port (decision 0040)."""
