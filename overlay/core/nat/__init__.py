"""What NATs do to us: the addresses that others see."""
