"""The best scale of a density by formula: scan, follow the dips, prove."""
