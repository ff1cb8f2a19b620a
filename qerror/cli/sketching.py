"""The commands `qerror scan` and `ask`."""
