"""Names that are imported when they are first used (PEP 562), as the package's stub lists them."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any


def attach(
    package: str, file: str, needs: Mapping[str, str] = MappingProxyType({})
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package whose stub beside `file` has only relative imports.

    ``from . import room`` makes a module an attribute, ``from .room.shelf import name as name`` a name public.
    `needs` says what has to be installed for a module.
    """
    rooms: set[str] = set()
    homes: dict[str, str] = {}
    for node in ast.parse(Path(file).with_suffix(".pyi").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
            if node.module is None:
                rooms.update(names)
            else:
                homes.update(dict.fromkeys(names, f"{package}.{node.module}"))

    def __getattr__(name: str) -> Any:
        if name in rooms:
            return importlib.import_module(f"{package}.{name}")
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(homes[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    def __dir__() -> list[str]:
        # What cannot be imported here is no member for help, completion and `inspect.getmembers`, which read them all.
        missing = {room for room in rooms if (need := needs.get(room)) and importlib.util.find_spec(need) is None}
        return sorted({*homes, *rooms} - missing)

    return __getattr__, __dir__, sorted(homes)
