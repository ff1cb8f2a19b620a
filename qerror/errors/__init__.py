"""The error of a quantizer: one formula, and the routes that evaluate it."""
