"""The documentation: its code runs, its sessions run, its links lead somewhere."""
