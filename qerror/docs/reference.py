"""A page for each public name, and one for each subpackage: signature, docstring, formula."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from html import escape

from .source import PACKAGE, Entry, docstring, members, public, rooms, signature
from .text import anchor, code, table

_SECTIONS = ("Parameters", "Returns", "Yields", "Raises", "Attributes", "Examples", "Notes", "See Also", "References")


def reference(formulas: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Pages by file name: title and HTML. `formulas` is HTML by public name."""
    names = public()
    pages = {_page(entry): (entry.name, _entry(entry, "qerror", formulas)) for entry in names}
    offered = rooms()
    for room, entries in offered.items():
        pages[f"api-{room}-module.html"] = (f"qerror.{room}", _room(room, entries))
    pages["reference.html"] = ("Reference", _index(names, offered))
    return pages


def prose(text: str) -> str:
    """HTML of a numpydoc docstring."""
    head, *rest = re.split(r"^(\w[\w ]*)\n-{3,}\n", text, flags=re.MULTILINE)
    parts = [_paragraphs(head)]
    for title, body in zip(rest[::2], rest[1::2], strict=True):
        if title not in _SECTIONS:
            raise ValueError(f"a docstring has the section {title!r}; known are {', '.join(_SECTIONS)}")
        made = _paragraphs(body) if title in ("Examples", "Notes", "See Also", "References") else _items(body)
        parts.append(f"<h4>{title}</h4>\n{made}")
    return "\n".join(parts)


def _entry(entry: Entry, place: str, formulas: Mapping[str, str]) -> str:
    node = entry.node
    parts = [code(signature(node, f"{place}.{entry.name}"), "py")]
    if entry.name in formulas:
        parts.append(f'<div class="formula">{formulas[entry.name]}</div>')
    parts.append(prose(ast.get_docstring(node) or ""))
    bases = [ast.unparse(base) for base in node.bases] if isinstance(node, ast.ClassDef) else []
    if bases:
        parts.append(f"<p>Bases: {', '.join(_words(f'`{base}`') for base in bases)}</p>")
    for part in members(node):
        called = any(isinstance(each, ast.Name) and "property" in each.id for each in part.decorator_list)
        said = part.name if called else signature(part, part.name)
        parts.append(f'<h3 id="{part.name}">{part.name}</h3>\n{code(said, "py")}')
        parts.append(prose(ast.get_docstring(part) or ""))
    where = entry.module.replace(".", "/")
    parts.append(f'<p class="where">Defined in <code>qerror/{where}.py</code></p>')
    return "\n".join(parts)


def _room(room: str, entries: Iterable[Entry]) -> str:
    parts = [prose(docstring(PACKAGE / room / "__init__.py"))]
    for entry in entries:
        parts.append(f'<h2 id="{anchor(entry.name)}">{entry.name}</h2>')
        parts.append(_entry(entry, f"qerror.{room}", {}))
    return "\n".join(parts)


def _index(names: Iterable[Entry], offered: Mapping[str, list[Entry]]) -> str:
    def line(entry: Entry, link: str) -> list[str]:
        said = (ast.get_docstring(entry.node) or "").partition("\n")[0]
        return [f'<a href="{link}"><code>{entry.name}</code></a>', _words(said)]

    rows = [line(entry, _page(entry)) for entry in names]
    parts = ["<p><code>import qerror as qe</code></p>", table(["name", "what it is"], rows)]
    for room, entries in offered.items():
        page = f"api-{room}-module.html"
        parts.append(f'<h2 id="{room}"><a href="{page}">qerror.{room}</a></h2>')
        parts.append(_words(docstring(PACKAGE / room / "__init__.py").partition("\n")[0]))
        parts.append(table(["name", "what it is"], [line(one, f"{page}#{anchor(one.name)}") for one in entries]))
    return "\n".join(parts)


def _paragraphs(text: str) -> str:
    """Paragraphs; what begins with >>> is code up to an empty line."""
    made = []
    for part in re.split(r"\n\s*\n", text.strip()):
        if part.lstrip().startswith(">>>"):
            made.append(code(part + "\n", "pycon"))
        elif part.strip():
            made.append(f"<p>{_words(part)}</p>")
    return "\n".join(made)


def _items(text: str) -> str:
    """Names with their types, and what is said of each indented below."""
    made = []
    for part in re.split(r"\n(?=\S)", text.strip()):
        name, _, said = part.partition("\n")
        said = "\n".join(line.strip() for line in said.splitlines())
        made.append(f"<dt>{_typed(name)}</dt><dd>{_paragraphs(said)}</dd>")
    return f"<dl>{''.join(made)}</dl>"


def _typed(line: str) -> str:
    name, colon, kind = line.partition(" : ")
    return f"<code>{escape(name)}</code>" + (f' <span class="type">{_words(kind)}</span>' if colon else "")


def _page(entry: Entry) -> str:
    """Where there are `Grid` and `grid`, letters alone do not tell files apart on every disk."""
    return f"api-{'class-' if isinstance(entry.node, ast.ClassDef) else ''}{entry.name}.html"


_NAMES = {entry.name: _page(entry) for entry in public()}


def _words(text: str) -> str:
    """A paragraph: code in backticks, public names as links."""

    def coded(match: re.Match[str]) -> str:
        said = match[1] or match[2]
        name = re.sub(r"^(?:qerror|qe)\.", "", said).partition("(")[0]
        # Of a method its class; `density.shape` is no attribute of a function.
        name = name.partition(".")[0] if name[:1].isupper() else name
        shown = f"<code>{said}</code>"
        return f'<a href="{_NAMES[name]}">{shown}</a>' if name in _NAMES else shown

    return re.sub(r"``([^`]+)``|`([^`]+)`", coded, escape(text, quote=False))
