"""`python -m qerror.docs FOLDER`, which `make docs` calls."""

import sys
from pathlib import Path

from .site import build


def main() -> int:
    """Write the pages; exit status 1 where a link leads nowhere."""
    if len(sys.argv) != 2:
        print("usage: python -m qerror.docs FOLDER", file=sys.stderr)
        return 2
    folder = Path(sys.argv[1])
    count, broken = build(folder)
    for link in broken:
        print(f"link leads nowhere: {link}", file=sys.stderr)
    print(f"{count} pages: {folder / 'index.html'}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
