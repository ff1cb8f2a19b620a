"""What the code says of itself: names, signatures, docstrings, read without importing anything."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent.parent
Definition = ast.FunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Entry:
    """A public name: where it is reached, where it is defined, and its definition."""

    name: str
    module: str
    node: Definition


def public() -> list[Entry]:
    """The names of `import qerror`, as its stub lists them."""
    found = []
    for module, name in _imported(PACKAGE / "__init__.pyi"):
        node = definition(module, name)
        if node is not None:
            found.append(Entry(name, module, node))
    return found


def rooms() -> dict[str, list[Entry]]:
    """The names that subpackages offer, by subpackage."""
    found: dict[str, list[Entry]] = {}
    for path in sorted(PACKAGE.glob("*/__init__.py")):
        stub = path.with_suffix(".pyi")
        listed = [*_imported(stub if stub.exists() else path)]
        offered = _offered(path)
        room = path.parent.name
        nodes = [(name, f"{room}.{module}") for module, name in listed if stub.exists() or name in offered]
        entries = [Entry(name, module, node) for name, module in nodes if (node := definition(module, name))]
        if entries:
            found[room] = entries
    return found


def docstring(path: Path) -> str:
    """The docstring of a file."""
    return ast.get_docstring(_tree(path)) or ""


def definition(module: str, name: str) -> Definition | None:
    """The function or class of that name in a module of the package, not its overloads; None where there is none."""
    path = PACKAGE.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if not path.exists():
        return None
    found = [node for node in _tree(path).body if isinstance(node, Definition) and node.name == name]
    return found[-1] if found else None


def signature(node: Definition, name: str) -> str:
    """How a function, or the constructor of a class, is called."""
    if isinstance(node, ast.FunctionDef):
        return _call(name, node)
    made = [part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"]
    if made:
        return _call(name, made[-1])
    fields = [part for part in node.body if isinstance(part, ast.AnnAssign) and not _private(part)]
    if any("dataclass" in ast.unparse(each) for each in node.decorator_list) and fields:
        return f"{name}({', '.join(ast.unparse(each) for each in fields)})"
    return name


def members(node: Definition) -> Iterator[ast.FunctionDef]:
    """The public methods and properties of a class that say something of their own."""
    if isinstance(node, ast.ClassDef):
        for part in node.body:
            named = isinstance(part, ast.FunctionDef) and not part.name.startswith("_")
            if named and isinstance(part, ast.FunctionDef) and ast.get_docstring(part):
                yield part


def _private(part: ast.AnnAssign) -> bool:
    return isinstance(part.target, ast.Name) and part.target.id.startswith("_")


def _call(name: str, node: ast.FunctionDef) -> str:
    arguments = [ast.unparse(one) for one in _arguments(node.args)]
    gives = f" -> {ast.unparse(node.returns)}" if node.returns is not None and node.name != "__init__" else ""
    line = f"{name}({', '.join(arguments)}){gives}"
    return line if len(line) <= 88 else f"{name}(\n    " + ",\n    ".join(arguments) + f",\n){gives}"


def _arguments(args: ast.arguments) -> Iterator[ast.arguments]:
    """Each argument as a list of its own, which `ast.unparse` writes with annotation and default."""
    plain = [*args.posonlyargs, *args.args]
    defaults: list[ast.expr | None] = [*[None] * (len(plain) - len(args.defaults)), *args.defaults]
    for argument, default in zip(plain, defaults, strict=True):
        if argument.arg not in ("self", "cls"):
            yield _alone(argument, default)
    if args.vararg:
        yield _alone(vararg=args.vararg)
    elif args.kwonlyargs:
        yield _alone(ast.arg("*"))
    for argument, value in zip(args.kwonlyargs, args.kw_defaults, strict=True):
        yield _alone(argument, value)
    if args.kwarg:
        yield _alone(kwarg=args.kwarg)


def _alone(
    argument: ast.arg | None = None,
    default: ast.expr | None = None,
    vararg: ast.arg | None = None,
    kwarg: ast.arg | None = None,
) -> ast.arguments:
    args = [argument] if argument else []
    return ast.arguments([], args, vararg, [], [], kwarg, [default] if default else [])


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _imported(path: Path) -> Iterator[tuple[str, str]]:
    """Modules and the names that a file imports from them."""
    for node in _tree(path).body:
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module:
            for alias in node.names:
                yield node.module, alias.asname or alias.name


def _offered(path: Path) -> set[str]:
    """`__all__`."""
    for node in _tree(path).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value)) if isinstance(node.value, ast.List) else set()
    return set()
