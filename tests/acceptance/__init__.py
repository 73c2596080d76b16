"""Black-box tests of each order: the command line, JSON, external tools, no import of overlay."""
