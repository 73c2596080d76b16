"""Real processes, network namespaces and firewalls: what tests and demos run nodes in."""
