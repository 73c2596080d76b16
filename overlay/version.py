"""The version, alone: `overlay`, its node and whatever builds the wheel read it from here."""

__version__ = "0.1.0"
