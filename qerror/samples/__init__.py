"""Distributions that are data: every sum over them exact."""
