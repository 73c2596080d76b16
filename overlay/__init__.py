"""A peer-to-peer mesh that needs no server: join by a link, negotiate through each other."""

__version__ = "0.1.0"
