"""``python -m qerror`` is the command ``qerror``."""

from .cli import main

if __name__ == "__main__":
    main()
