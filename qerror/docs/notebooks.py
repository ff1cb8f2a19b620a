"""Executed notebooks as pages: text, code, and the outputs that are stored in them."""

from __future__ import annotations

import json
import re
from html import escape
from pathlib import Path
from typing import Any

from .text import code, formula, markdown


def notebook_page(path: Path) -> tuple[str, str]:
    """Title and HTML of a notebook."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    parts = [_cell(cell) for cell in cells]
    title = next(match[1] for cell in cells if (match := re.match(r"# (.*)", "".join(cell["source"]))))
    return title, "\n".join(parts)


def _cell(cell: dict[str, Any]) -> str:
    text = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return re.sub(r"<h1[^>]*>.*?</h1>", "", markdown(text), count=1)
    outputs = "".join(_output(one) for one in cell["outputs"])
    shown = code(text, "py")
    # What is folded already needs no code beside it.
    if text.startswith("code_of("):
        return outputs
    if "source_hidden" in json.dumps(cell["metadata"]) or text.lstrip().startswith("assert "):
        shown = f"<details><summary>code</summary>{shown}</details>"
    return f'<div class="cell">{shown}{outputs}</div>'


def _output(one: dict[str, Any]) -> str:
    if one["output_type"] == "stream":
        return f'<pre class="out">{escape("".join(one["text"]))}</pre>'
    data = {key: "".join(value) for key, value in one["data"].items()}
    if "image/png" in data:
        said, content = escape(data.get("text/plain", "figure")), data["image/png"].strip()
        size = one.get("metadata", {}).get("image/png", {})
        shown = "".join(f' {key}="{value}"' for key, value in size.items())
        return f'<img alt="{said}"{shown} src="data:image/png;base64,{content}">'
    if "text/markdown" in data:
        return markdown(data["text/markdown"])
    if "text/latex" in data:
        return formula(re.sub(r"^\$+(?:\\displaystyle)?|\$+$", "", data["text/latex"].strip()), block=True)
    return data.get("text/html") or f'<pre class="out">{escape(data["text/plain"])}</pre>'
