"""The scale, the shift and the levels of least error."""
