"""Distributions of the values to be quantized; `base.Density` says what all of them answer."""
