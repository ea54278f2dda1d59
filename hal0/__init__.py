"""hal0: one Linux machine as a private inference platform, declared in files."""

__version__ = "0.1.0"
