"""Grids: what a quantizer can represent, the named formats, and casting arrays to them and back."""
