"""Scales for one tensor: `fit` chooses them, `evaluate` says what given ones cost."""
