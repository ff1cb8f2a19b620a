"""README and pages tell the truth: commands run, pictures and links exist; their Python runs in test_project.py."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from qerror.checkpoints import export, plan, scan
from qerror.cli.commands import qerror_command
from qerror.files import example_checkpoint
from qerror.grids.block_formats import block_formats
from qerror.grids.formats import formats
from qerror.literature import Verdict, audit

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "qerror" / "docs" / "pages").glob("*.md"))
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
TEXTS = {"README": TEXT} | {path.stem: path.read_text(encoding="utf-8") for path in PAGES}
BLOCKS = [
    block for text in TEXTS.values() for block in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
]


def lines(first_word: str) -> list[str]:
    """Commands of the blocks without a language, by their first word; comments left out."""
    found = [line.partition("#")[0].strip() for language, body in BLOCKS if not language for line in body.splitlines()]
    return list(dict.fromkeys(line for line in found if line.split()[:1] == [first_word]))


def test_every_block_is_of_a_kind_that_is_run() -> None:
    """But for what needs another shell or another's model, which says so by its language."""
    assert {language for language, _ in BLOCKS} == {"", "python", "sh"}
    words = {line.split()[0] for language, body in BLOCKS if not language for line in body.splitlines() if line.strip()}
    assert words == {"make", "python3", ".venv/bin/pip", ".venv/bin/qerror", ".venv/bin/python", "qerror"}
    for language, body in BLOCKS:
        assert (">>> " in body) == (language == "python")


@pytest.mark.slow
@pytest.mark.parametrize("line", lines("qerror"))
def test_commands_run(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(example_checkpoint(), "model.safetensors")
    scan("model.safetensors", include=["*.weight"]).save("model.sketch.safetensors")
    if " --against " in line:
        export("model.safetensors", "out", format="int4_g32")
    if "--plan" in line:
        plan("model.safetensors", ["int4_g32", "nvfp4"], bits=5, include=["*.weight"]).save("plan.json")
    if "--check" in line:
        CliRunner().invoke(qerror_command, ["certify", "int8", "-o", "proof.json"], catch_exceptions=False)
    result = CliRunner().invoke(qerror_command, shlex.split(line)[1:], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert result.stdout


def test_make_knows_its_targets() -> None:
    if shutil.which("make") is None:
        pytest.skip("no make, which comes with a compiler")
    for line in lines("make"):
        done = subprocess.run([*shlex.split(line), "-n"], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_plain_commands_are_those_of_make() -> None:
    """What a user without make types is what the Makefile does, up to the name of the interpreter."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert lines("python3") == ["python3 -m venv .venv"]
    assert "-m venv $(VENV)" in makefile
    assert lines(".venv/bin/pip") == ['.venv/bin/pip install -e ".[test]"']
    assert "pip install --quiet --editable '.[test]'" in makefile
    assert lines(".venv/bin/qerror") == [".venv/bin/qerror demo"]
    assert "$(BIN)/qerror demo" in makefile
    assert lines(".venv/bin/python") == [".venv/bin/python -m pytest -n auto"]
    assert "-m pytest -n auto" in makefile


def test_links_and_pictures_exist() -> None:
    targets = [target for target in re.findall(r"\]\(([^)]+)\)", TEXT) if not target.startswith("https://")]
    assert len(targets) > 8
    assert [target for target in targets if not (ROOT / target.partition("#")[0]).is_file()] == []


@pytest.mark.parametrize("name", TEXTS)
def test_links_of_pages_lead_to_pages(name: str) -> None:
    """All pages are built, and all links followed, by `make docs`; this knows the names of pages without that."""
    made = {*formats(), *block_formats()}
    known = {f"{stem}.html" for stem in TEXTS} | {f"format-{each}.html" for each in made}
    known |= {f"{path.stem}.html" for path in (ROOT / "notebooks").glob("*.ipynb")}
    known |= {f"{each}.html" for each in ("formats", "reference", "commands", "json", "audit", "notebooks")}
    known |= {"changelog.html", "contributing.html"}
    known |= {f"api-{path.parent.name}-module.html" for path in (ROOT / "qerror").glob("*/__init__.py")}
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", "" if name == "README" else TEXTS[name]):
        assert target in known or target.startswith("https://") or (ROOT / target).is_file() or target.endswith("ipynb")


def test_a_package_index_shows_no_link_that_needs_the_tree() -> None:
    """As the wheel is built: pictures left out, links into the tree their words, the others as they are."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    text = TEXT
    for each in project["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        text = re.sub(each["pattern"], each["replacement"], text)
    assert re.findall(r"\]\(", text)
    assert all(target.startswith("https://") for target in re.findall(r"\]\(([^)]*)", text))
    assert "The tour goes on" in text
    assert "figures/" not in text
    # Python is untouched.
    assert all(block in text for block in re.findall(r"```python\n.*?```", TEXT, re.DOTALL))


def test_the_readme_is_short() -> None:
    assert len(TEXT.splitlines()) <= 200


def test_what_it_says_of_the_audit() -> None:
    rows = {(row.name, row.item): row for row in audit()}
    checked = [row for row in rows.values() if row.verdict is not Verdict.UNCHECKED]
    assert f"recomputes {len(checked)} published constants" in " ".join(TEXTS["accuracy"].split())
    assert round(rows["ACIQ Gaussian: constants in use", "4"].lost_db, 2) == 0.08
    assert round(rows["ACIQ Gaussian: longer list", "4"].lost_db, 2) == 0.07
    assert round(rows["QuEST: OPTIMAL_GAUSSIAN_SCALES", "8"].relative_error, 2) == -0.01
    assert rows["AF4", "64"].lost_db > 0.1
    for name, item in (("BOF4, squared error", "64"), ("NF4", "16 levels"), ("NF3", "8 levels"), ("SF4", "5")):
        assert abs(rows[name, item].relative_error) < 1e-5
