"""`python -m overlay`, and the command `overlay`: what a signal does is decided before all else."""

from overlay import signals


def main() -> None:
    """The entry point of the command `overlay`."""
    signals.install()
    from overlay.cli.main import main as command

    command()


if __name__ == "__main__":
    main()
