"""The version, where files that are written can read it without the package's public names."""

__version__ = "0.1.0"
