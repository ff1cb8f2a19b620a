"""The best scale of a sample, proven: its error is a chain of parabolas."""
