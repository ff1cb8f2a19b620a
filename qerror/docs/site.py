"""All pages: those of `pages`, those made from the code, their menu, search and links."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from html import escape, unescape
from importlib.resources import files
from multiprocessing import get_context
from pathlib import Path

import click

from .._version import __version__
from ..cli.commands import COMMANDS, qerror_command
from ..grids.block_formats import block_formats
from ..grids.formats import formats
from ..literature import audit
from .formats import format_index, format_page
from .notebooks import notebook_page
from .reference import reference
from .source import PACKAGE
from .text import markdown, table

PAGES = PACKAGE / "docs" / "pages"
ROOT = PACKAGE.parent
MENU = {
    "index": "Start",
    "tour": "Tour",
    "how-to": "How to",
    "command-line": "Command line",
    "checkpoints": "Checkpoints",
    "runtimes": "Runtimes",
    "training": "Training",
    "formats": "Formats",
    "reference": "Reference",
    "formulas": "Formulas",
    "accuracy": "Accuracy",
    "audit": "Audit",
    "notebooks": "Notebooks",
    "glossary": "Glossary",
}
# Words of a page that the search knows.
_INDEXED = 400


def build(folder: Path, workers: int = 2) -> tuple[int, list[str]]:
    """Write all pages into a folder, by several processes; how many, and the links that lead nowhere."""
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        made = pool.map(_called, _jobs())
        pages = {name: (title, html) for each in made for name, title, html in each}
    index = []
    for name, (title, html) in pages.items():
        (folder / name).write_text(_page(name, title, html), encoding="utf-8")
        words = unescape(re.sub(r"<(svg|math|style)\b.*?</\1>|<[^>]*>", " ", html, flags=re.DOTALL)).split()
        index.append([title, name, " ".join(words[:_INDEXED]).lower()])
    for asset in ("site.css", "site.js"):
        (folder / asset).write_text((files(__package__) / asset).read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "search.js").write_text(f"const pages = {json.dumps(index)};\n", encoding="utf-8")
    if (ROOT / "figures").is_dir():
        shutil.copytree(ROOT / "figures", folder / "figures", dirs_exist_ok=True)
    return len(pages), broken_links(folder)


def broken_links(folder: Path) -> list[str]:
    """Links and pictures of pages that are not there, and anchors that no element has."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.html")}
    anchors = {name: set(re.findall(r'\bid="([^"]+)"', text)) for name, text in texts.items()}
    broken = []
    for name, text in texts.items():
        for target in dict.fromkeys(re.findall(r'<(?:a|img|script|link)\b[^>]*?(?:href|src)="([^"]+)"', text)):
            path, _, mark = target.partition("#")
            if path.startswith(("https://", "data:")):
                continue
            there = not path or (folder / path).is_file()
            if not there or (mark and mark not in anchors.get(path or name, set())):
                broken.append(f"{name}: {target}")
    return broken


# File name, title and HTML.
Page = tuple[str, str, str]


def _jobs() -> list[Callable[[], list[Page]]]:
    """What makes the pages, the longest first."""
    named = [*block_formats(), *formats()]
    return [_audit_page, *(partial(_format_page, name) for name in named), _other_pages]


def _called(job: Callable[[], list[Page]]) -> list[Page]:
    return job()


def _audit_page() -> list[Page]:
    return [("audit.html", "Audit of published constants", _audit())]


def _format_page(name: str) -> list[Page]:
    return [(f"format-{name}.html", name, format_page(name))]


def _other_pages() -> list[Page]:
    return list(_written_and_read())


def _written_and_read() -> Iterator[Page]:
    for path in sorted(PAGES.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        title = text.partition("\n")[0].removeprefix("# ")
        yield f"{path.stem}.html", title, _linked(markdown(text.partition("\n")[2]))
    yield "formats.html", "Formats", format_index()
    for name, (title, html) in reference(formulas()).items():
        yield name, title, html
    yield "commands.html", "Commands", _commands()
    yield "json.html", "JSON of the command line", _json()
    listed = []
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        title, html = notebook_page(path)
        listed.append([f'<a href="{path.stem}.html">{escape(title)}</a>', f"<code>notebooks/{path.name}</code>"])
        yield f"{path.stem}.html", title, html
    yield "notebooks.html", "Notebooks", _NOTEBOOKS + table(["notebook", "file"], listed)
    for name in ("CHANGELOG", "CONTRIBUTING"):
        if (ROOT / f"{name}.md").is_file():
            text = (ROOT / f"{name}.md").read_text(encoding="utf-8")
            yield f"{name.lower()}.html", name.capitalize(), _linked(markdown(text.partition("\n")[2]))


_NOTEBOOKS = (
    "<p>As they were executed. To run them: <code>pip install -e '.[notebook]'</code> and "
    "<code>jupyter lab notebooks</code>; CI runs all of them and compares what they say.</p>"
)


def formulas() -> dict[str, str]:
    """The formula of each public name, as `formulas.md` has them."""
    parts = re.split(r"^## (\w+)\n", (PAGES / "formulas.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {name: markdown(text) for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def _linked(html: str) -> str:
    """Links between the files of the source tree as links between pages."""
    html = re.sub(r'href="(?:notebooks/|\.\./notebooks/)?([\w-]+)\.ipynb"', r'href="\1.html"', html)
    page = re.compile(r'href="(?:qerror/docs/pages/)?([\w-]+)\.md(#[^"]*)?"')
    html = page.sub(lambda match: f'href="{match[1].lower()}.html{match[2] or ""}"', html)
    return re.sub(r'src="(?:https://[^"]*/)?figures/', 'src="figures/', html)


def _commands() -> str:
    parts = []
    for name in COMMANDS:
        context = click.Context(qerror_command, info_name="qerror", terminal_width=80)
        command = qerror_command.get_command(context, name)
        said = command.get_help(click.Context(command, info_name=name, parent=context, terminal_width=80))
        parts.append(f'<h2 id="{name}">qerror {name}</h2>\n<pre>{escape(said)}</pre>')
    return "\n".join(parts)


def _json() -> str:
    schema = json.loads((PACKAGE / "data" / "output.schema.json").read_text(encoding="utf-8"))
    fields = schema["$defs"]["fields"]["properties"]
    parts = [
        "<p>Every table comes as JSON with <code>--json</code>: an object with <code>command</code>, "
        "<code>version</code>, what was asked, and <code>rows</code>. Numbers have all digits; what is infinite or no "
        "number is null. The schema is <code>qerror/data/output.schema.json</code>; keys change only with a line in "
        "the changelog.</p>"
    ]
    for command in schema["properties"]["command"]["enum"]:
        rows = schema["$defs"][command]
        lines = [[f"<code>{key}</code>", escape(fields[key]["description"])] for key in rows["properties"]]
        parts.append(f'<h2 id="{command}">{command}</h2>' + table(["key of a row", "meaning"], lines))
    plan = json.loads((PACKAGE / "data" / "plan.schema.json").read_text(encoding="utf-8"))["properties"]
    parts.append('<h2 id="plan">plan</h2><p>The plan itself, as <code>plan -o</code> writes it: plan.schema.json.</p>')
    for title, keys in (("key", plan), ("key of a tensor", plan["tensors"]["additionalProperties"]["properties"])):
        lines = [[f"<code>{key}</code>", escape(field["description"])] for key, field in keys.items()]
        parts.append(table([title, "meaning"], lines))
    return "\n".join(parts)


def _audit() -> str:
    rows = []
    for row in audit():
        exact = "" if row.exact is None else f"{row.exact:.10g}"
        lost = "" if row.lost_db is None else f"{row.lost_db:.3g}"
        cells = (row.name, row.item, row.printed, exact, lost, row.verdict.name.lower(), f"{row.source}: {row.claim}")
        rows.append([escape(str(cell)) for cell in cells])
    head = ["what", "case", "printed", "exact", "lost dB", "verdict", "source, and what it claims"]
    box = '<input id="filter" type="search" placeholder="filter: aciq, e4m3, wrong, ..." aria-label="filter">'
    said = f'<p>Every constant recomputed, as <code>qerror audit</code> does.</p><p>{box} <span id="count"></span></p>'
    return said + table(head, rows, name="audit")


def _page(name: str, title: str, html: str) -> str:
    here = name.removesuffix(".html")
    links = "".join(
        f'<a href="{stem}.html"{" aria-current=page" if stem == here else ""}>{word}</a>' for stem, word in MENU.items()
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(title)} - qerror</title><link rel="stylesheet" href="site.css"></head>\n<body>\n'
        f'<nav><a class="name" href="index.html">qerror</a><span class="version">{__version__}</span>'
        '<input id="search" type="search" placeholder="Search" aria-label="Search"><ul id="found"></ul>'
        f"{links}</nav>\n<main><h1>{escape(title)}</h1>\n{html}\n</main>\n"
        '<script src="search.js"></script><script src="site.js"></script></body></html>\n'
    )
