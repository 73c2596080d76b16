"""`python -m overlay`: the same as the command `overlay`."""

from overlay.cli.main import main

main()
