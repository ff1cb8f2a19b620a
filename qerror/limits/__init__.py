"""What no scale, no codebook and no scalar quantizer can beat."""
