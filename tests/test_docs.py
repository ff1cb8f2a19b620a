"""The documentation: pages are made without a warning, formulas drawn, names linked; in a browser it is searched."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import qerror as qe

pytest.importorskip("latex2mathml", reason="latex2mathml is not installed: qerror[docs]")

from qerror.certify import certify_block_error
from qerror.docs import blocks, drawing, formats, notebooks, reference, site, source, text
from qerror.literature import audit

ROOT = Path(__file__).parent.parent
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
# As in test_report: a browser that calls nobody.
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync")
FLAGS += ("--disable-background-networking", "--disable-component-update", "--allow-file-access-from-files")


def test_every_public_name_has_a_page_with_its_signature() -> None:
    pages = reference.reference(site.formulas())
    titles = {title for title, _ in pages.values()}
    assert {name for name in qe.__all__ if name != "__version__"} <= titles
    assert {f"qerror.{name}" for name in ("rules", "checkpoints", "files", "certify", "testing", "training")} <= titles
    _, html = pages["api-optimal_scale.html"]
    assert "certify: " in re.sub("<[^>]*>", "", html)
    assert "<math" in html
    assert '<a href="api-class-ScaleResult.html"><code>ScaleResult</code></a>' not in html.partition("<h4>")[0]
    # Not told apart by the case of a letter on some disks.
    assert len({name.lower() for name in pages}) == len(pages)


def test_formulas_are_of_public_names_and_are_drawn() -> None:
    found = site.formulas()
    assert set(found) <= set(qe.__all__)
    assert all("<math" in html and "merror" not in html for html in found.values())


def test_signatures_are_those_of_the_functions() -> None:
    """Read off the text, as without PyTorch too; compared with what Python says."""
    import inspect

    for entry in source.public():
        if isinstance(entry.node, ast.FunctionDef):
            said = source.signature(entry.node, entry.name)
            names = list(inspect.signature(getattr(qe, entry.name)).parameters)
            assert (
                re.findall(r"(?:^|[(,]\s*)\**(\w+)(?=[:=,)])", re.sub(r"\[[^()]*?\]", "", said))[: len(names)] == names
            )


@pytest.mark.parametrize(
    ("said", "html"),
    [
        ("a $s^2$ b", "<msup><mi>s</mi><mn>2</mn></msup>"),
        ("`$x$` and $5", "<code>$x$</code> and $5"),
        ("## Is it *so*?", '<h2 id="is-it-so">Is it <em>so</em>?</h2>'),
        ("| a |\n|---|\n| 1 |", "<td>1</td>"),
        ("```python\n>>> 1\n1\n```", '<span class="mi">1</span>'),
    ],
)
def test_markdown(said: str, html: str) -> None:
    assert html in text.markdown(said)


def test_docstrings() -> None:
    html = reference.prose(
        "One < two.\n\nParameters\n----------\nx : Grid\n    See `Grid`, `grid.name`.\n\nExamples\n--------\n>>> 1\n1"
    )
    assert "<p>One &lt; two.</p>" in html
    assert '<a href="api-class-Grid.html"><code>Grid</code></a>, <code>grid.name</code>' in html
    with pytest.raises(ValueError, match="a docstring has the section 'Remarks'"):
        reference.prose("One.\n\nRemarks\n-------\nNo.")


def test_notebooks_are_pages() -> None:
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        title, html = notebooks.notebook_page(path)
        assert title
        assert "merror" not in html
        assert html.count("<img") + html.count("<svg") + html.count("<math") > 0


def test_the_page_of_a_format() -> None:
    html = formats._grid_page(qe.grid("e2m1"))
    assert "<code>float4_e2m1fn</code>" in html
    assert "1 sign; 2 exponent, bias 1; 1 mantissa; no code reserved" in html
    best = qe.load_table().certified("e2m1", "laplace")
    assert best.scale[1:].partition(" ")[0] in html
    assert html.count('<circle class="best"') == 1
    assert html.count('<circle class="minimum"') == len(qe.optimal_scale(qe.Gaussian(), "e2m1").minima) - 1
    assert html.count("<tr>") >= 15 + 9


def test_the_page_of_a_block_format() -> None:
    html = blocks.block_page(qe.block_format("mxfp4"))
    mean = qe.octave_average(qe.Gaussian(), "mxfp4").mean
    assert f"<td>gaussian</td><td>{mean.mse:.6g}</td><td>{mean.sqnr_db:.3f}</td>" in html
    assert len(re.findall(r'<polyline class="(?:first|second|third|fourth)"', html)) == 4
    assert "<code>mxfp4-pack-quantized</code>" in html


def test_certified_digits_of_block_formats() -> None:
    """The balls hold the errors, and one of them is proven again; nightly all."""
    for row in json.loads(blocks.CERTIFIED.read_text(encoding="utf-8")):
        middle, radius = map(float, row["mse"].strip("[]").split(" +/- "))
        assert radius < 1e-29 * middle
        error = qe.quantization_error(qe.density(row["density"]), row["format"])
        assert float(error.mse) == pytest.approx(middle, rel=1e-12)
        if row["format"] == "mxfp4" and row["density"] == "gaussian":
            assert certify_block_error(row["density"], row["format"]).mse == row["mse"]


@pytest.mark.nightly
def test_all_certified_digits_of_block_formats() -> None:
    for row in json.loads(blocks.CERTIFIED.read_text(encoding="utf-8")):
        assert certify_block_error(row["density"], row["format"]).mse == row["mse"]


def test_marks_of_decibels() -> None:
    assert [word for _, word in drawing._decibels(17.6, 19.1)] == ["18", "18.5", "19"]
    assert [height for height, _ in drawing._decibels(-1.0, 21.0)] == [0, 5, 10, 15, 20]


def test_dead_links_are_found(tmp_path: Path) -> None:
    links = '<a href="b.html#x">b</a><a href="b.html#y">b</a><img src="no.png"><h1 id="z"></h1><a href="#z">'
    (tmp_path / "a.html").write_text(links)
    (tmp_path / "b.html").write_text('<p id="x">')
    assert site.broken_links(tmp_path) == ["a.html: b.html#y", "a.html: no.png"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    count, broken = site.build(folder)
    assert broken == []
    assert count > 190
    return folder


@pytest.mark.nightly
def test_the_site_is_whole(built: Path) -> None:
    """`make docs` in CI does the same."""
    for name in (*qe.formats(), *qe.block_formats()):
        assert (built / f"format-{name}.html").is_file()
    texts = [path.read_text(encoding="utf-8") for path in built.glob("*.html")]
    assert not [text for text in texts if re.search(r'(?:src|href)="(?:https?:)?//', text) and 'src="http' in text]


@pytest.mark.nightly
@pytest.mark.skipif(BROWSER is None, reason="needs Chromium: apt-get install chromium")
@pytest.mark.parametrize(
    ("page", "act", "expected"),
    [
        ("index", "const b = document.getElementById('search'); b.value = 'optimal scale'; ", "api-optimal_scale.html"),
        ("audit", "const b = document.getElementById('filter'); b.value = 'aciq'; ", "ACIQ Laplace"),
    ],
)
def test_searched_in_chromium(built: Path, tmp_path: Path, page: str, act: str, expected: str) -> None:
    html = (built / f"{page}.html").read_text(encoding="utf-8")
    script = f"<script>{act}b.dispatchEvent(new Event('input'));</script>"
    (built / "driven.html").write_text(html.replace("</body>", f"{script}</body>"), encoding="utf-8")
    command = [str(BROWSER), *FLAGS, f"--user-data-dir={tmp_path}", "--dump-dom", (built / "driven.html").as_uri()]
    out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    shown = re.search(r'<ul id="found">(.*?)</ul>', out)[1] if page == "index" else out
    assert expected in shown
    if page == "audit":
        count, total = map(int, re.search(r'id="count">(\d+) of (\d+)', out).groups())
        assert 0 < count < total == len(audit())
        # What does not match is not shown.
        assert out.count('<tr hidden="">') == total - count
