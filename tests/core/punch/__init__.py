"""Beyond ICE: the plan, what is attested, and either technique by itself."""
