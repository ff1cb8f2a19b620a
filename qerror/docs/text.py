"""Markdown and formulas to HTML: formulas become MathML, which browsers draw by themselves."""

from __future__ import annotations

import re
from html import escape, unescape

from latex2mathml.converter import convert
from markdown_it import MarkdownIt
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name

from ..grids.block_formats import block_formats
from ..grids.formats import formats

# Code, which is left alone, or a formula: displayed, or inside of a line.
_MATH = re.compile(r"(```.*?```|`[^`]*`)|\$\$(.+?)\$\$|(?<![\w\\$])\$([^\s$](?:[^$\n]*[^\s$])?)\$(?!\w)", re.DOTALL)
_HOLDER = "\x02{}\x03"


def formula(latex: str, *, block: bool) -> str:
    r"""MathML of a formula.

    Examples
    --------
    >>> formula("s^2", block=False)[:5]
    '<math'
    """
    # Environments that only align are as well without; sizes of brackets follow from what they hold.
    plain = re.sub(r"\\(?:big|Big|bigl|bigr)\b\s*", "", latex)
    return str(convert(plain.strip(), display="block" if block else "inline"))


def code(text: str, language: str) -> str:
    """A block of code, coloured."""
    lexer = get_lexer_by_name({"": "console", "python": "pycon"}.get(language, language))
    coloured = highlight(text, lexer, HtmlFormatter(nowrap=True)) if language else escape(text)
    return f"<pre><code>{coloured}</code></pre>\n"


def markdown(text: str) -> str:
    """HTML of Markdown with tables and formulas; headings have their words as anchors."""
    formulas: list[str] = []

    def kept(match: re.Match[str]) -> str:
        if match[1]:
            return match[1]
        formulas.append(formula(match[2] or match[3], block=bool(match[2])))
        return _HOLDER.format(len(formulas) - 1)

    made = MarkdownIt("commonmark", {"html": True}).enable("table")
    made.options["highlight"] = lambda source, language, _: code(source, language)
    html = str(made.render(_MATH.sub(kept, text)))
    html = re.sub(r"<h([1-4])>(.*?)</h\1>", _heading, html, flags=re.DOTALL)
    return re.sub(_HOLDER.format(r"(\d+)"), lambda match: formulas[int(match[1])], html)


def anchor(title: str) -> str:
    """What a heading is found by.

    Examples
    --------
    >>> anchor("Which layers stay at 8 bits?")
    'which-layers-stay-at-8-bits'
    """
    return re.sub(r"[^a-z0-9_.]+", "-", unescape(re.sub("<[^>]*>", "", title)).lower()).strip("-.")


def _heading(match: re.Match[str]) -> str:
    return f'<h{match[1]} id="{anchor(match[2])}">{match[2]}</h{match[1]}>'


def table(head: list[str], rows: list[list[str]], *, name: str = "") -> str:
    """An HTML table of cells that are HTML."""
    cells = "".join(f"<th>{cell}</th>" for cell in head)
    body = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    mark = f' id="{name}"' if name else ""
    return f"<table{mark}><thead><tr>{cells}</tr></thead><tbody>\n{body}\n</tbody></table>\n"


def link(name: str) -> str:
    """The name of a format, as a link to its page where it has one."""
    shown = f"<code>{escape(name)}</code>"
    return f'<a href="format-{name}.html">{shown}</a>' if name in {*formats(), *block_formats()} else shown
