"""This client's version, said to servers and people."""

__version__ = "1.0.0"
