"""The project holds together: layers, import cost, versions, names that do not belong into it."""

import ast
import doctest
import importlib
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import qerror

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "qerror"

# The rooms of the package, lowest first: a module imports from its own room or from a line above. Rooms of one line use
# one another only where BESIDE says so.
LINES = (
    ("_version", "_lazy", "_types", "_text", "_check", "_threads", "_files", "results"),
    ("grids",),
    ("casting",),
    ("densities",),
    ("samples",),
    ("errors",),
    ("search",),
    ("rules", "tensors"),
    ("limits",),
    ("files",),
    ("checkpoints",),
    ("evidence", "literature", "certify"),
    ("tables", "symbolic", "plotting", "testing", "training"),
    ("cli", "__main__"),
    ("docs",),
)
BESIDE = {
    "_check": {"_text"},
    "_threads": {"_check"},
    "_files": {"_check"},
    "results": {"_text", "_types"},
    "tensors": {"rules"},
    "training": {"tables", "plotting"},
    "__main__": {"cli"},
}
# What is imported inside of functions: by the command line, whose help should not wait for them.
ON_DEMAND = {"qerror.cli.commands", "qerror.certify", "qerror.symbolic", "qerror.plotting", "qerror.plotting.figures"}
# Loaded by nobody who only says `import qerror`.
HEAVY = (
    "sympy",
    "matplotlib",
    "scipy.stats",
    "scipy.optimize",
    "torch",
    "safetensors",
    "click",
    "rich",
    "flint",
    "numba",
)
TEST_ONLY = {"ml_dtypes", "gfloat", "mpmath", "hypothesis", "pytest", "jsonschema"}
# Hosts that the project may point at: papers, licences, format descriptions (SVG has its name there), origins of data.
HOSTS = {
    "127.0.0.1",
    "arxiv.org",
    "archive.ics.uci.edu",
    "doi.org",
    "download.pytorch.org",
    "git-lfs.github.com",
    "github.com",
    "json-schema.org",
    "keepachangelog.com",
    "semver.org",
    "www.apache.org",
    "www.w3.org",
}
STUB = ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8")).body
SUBPACKAGES = {
    alias.name for node in STUB if isinstance(node, ast.ImportFrom) and node.module is None for alias in node.names
}
TEXTS = {".py", ".pyi", ".md", ".toml", ".cff", ".json", ".txt", ".ipynb", ""}


def modules():
    return sorted(path for path in PACKAGE.rglob("*.py"))


def dotted(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path):
    """Every import of a file: the full name of the module, and whether it stands inside of a function."""
    package = dotted(path).split(".") if path.name == "__init__.py" else dotted(path).split(".")[:-1]

    def walk(node, inside):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((alias.name, inside) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                stem = package[: len(package) - child.level + 1] if child.level else []
                base = ".".join([*stem, *([child.module] if child.module else [])])
                # `from . import shelf` means the module; `from .shelf import Grid` a name in it.
                whole = (f"{base}.{alias.name}" for alias in child.names)
                yield from ((name if name in MODULES else base, inside) for name in whole)
            else:
                yield from walk(child, inside or isinstance(child, ast.FunctionDef | ast.Lambda))

    return set(walk(ast.parse(path.read_text(encoding="utf-8")), inside=False))


MODULES = {dotted(path): path for path in modules()}


def room(module):
    return [*module.split("."), ""][1]


def line_of(module):
    return next(number for number, rooms in enumerate(LINES) if room(module) in rooms)


def arrows(path):
    return {name for name, _ in imports(path) if name.split(".")[0] == "qerror"}


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_imports_only_go_up_the_architecture(path):
    if dotted(path) == "qerror":
        assert arrows(path) == {"qerror._lazy", "qerror._version"}, "its names are lazy"
        return
    for name in arrows(path):
        if name == "qerror":
            assert room(dotted(path)) == "cli", f"{dotted(path)} imports {name}: import from the module that has it"
        elif room(name) != room(dotted(path)) and room(name) not in BESIDE.get(room(dotted(path)), ()):
            assert line_of(name) < line_of(dotted(path)), f"{dotted(path)} imports {name}, which is not above it"


def test_no_circle_of_imports():
    """Not inside of a room either, and imports for type checkers count."""
    left = {name: arrows(path) - {name} for name, path in MODULES.items()}
    left["qerror"] = set()
    while free := [name for name, needs in left.items() if not needs & left.keys()]:
        for name in free:
            del left[name]
    assert sorted(left) == []


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_no_import_is_hidden_in_a_function(path):
    hidden = {name for name, inside in imports(path) if inside and name.split(".")[0] == "qerror"}
    assert hidden <= (ON_DEMAND if room(dotted(path)) == "cli" else set())


def test_every_room_has_its_line_and_says_what_it_is_for():
    rooms = {room(name) for name in MODULES} - {""}
    assert rooms == {name for line in LINES for name in line}
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert [name for name in rooms if f"`{name}/`" not in text and f"`{name}.py`" not in text] == []


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_package_imports_only_declared_dependencies(path):
    declared = {re.split(r"[<>=~! ]", text)[0] for text in pyproject()["project"]["dependencies"]}
    extras = {
        "docs": {"markdown_it", "latex2mathml", "pygments"},
        "training": {"torch", "sklearn"},
        "testing": {"hypothesis"},
        "data": {"sklearn"},
        "certify": {"flint"},
    }
    # As a script, one checker of certificates imports the other.
    extras["certify"].add("checker")
    optional = set().union(*(extras[part] for part in path.parts if part in extras))
    known = sys.stdlib_module_names | declared | optional | {"qerror"}
    assert {name.split(".")[0] for name, _ in imports(path)} <= known


def pyproject():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_test_oracles_are_no_runtime_dependencies():
    assert not any(text.startswith(tuple(TEST_ONLY)) for text in pyproject()["project"]["dependencies"])


def load(module):
    """Import a module of the package; PyTorch and what needs it may be missing."""
    if module.startswith("qerror.training"):
        pytest.importorskip("torch", reason="torch is not installed")
    return importlib.import_module(module)


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_import_loads_nothing_heavy():
    code = f"import sys, qerror; print(*[m for m in sys.modules if m.startswith({HEAVY!r})])"
    assert run(code).split() == []


def test_core_functions_load_nothing_heavy():
    """A name that is used brings its own modules, not plotting or symbolic algebra."""
    code = (
        "import sys, qerror as qe\n"
        "for density in (qe.Gaussian(), qe.Empirical([1.0, 2.0])): qe.optimal_scale(density, 'int4')\n"
        f"print(*[m for m in sys.modules if m.startswith({(*HEAVY[:3], *HEAVY[4:])!r})])"
    )
    assert run(code).split() == []


@pytest.mark.parametrize("name", qerror.__all__)
def test_every_public_name_is_there_and_documented(name):
    value = getattr(qerror, name)
    assert name in dir(qerror)
    assert name == "__version__" or value.__doc__


def test_names_stand_in_the_stub_alone():
    """What type checkers and editors read is what `import qerror` offers."""
    nodes = [node for node in STUB if isinstance(node, ast.ImportFrom)]
    assert all(alias.asname == alias.name for node in nodes for alias in node.names), "only `x as x` is exported"
    names = {alias.name for node in nodes for alias in node.names}
    assert names == set(qerror.__all__) | SUBPACKAGES
    without = set() if importlib.util.find_spec("torch") else {"training"}
    assert names - without == set(dir(qerror))


def test_training_without_torch_says_what_to_install():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import qerror\n"
        "try: qerror.training\n"
        "except ImportError as error: print(error)"
    )
    assert run(code).startswith("qerror.training needs PyTorch: pip install 'qerror[torch]'")


def test_certify_without_flint_says_what_to_install():
    code = (
        "import sys; sys.modules['flint'] = None\n"
        "import qerror\n"
        "from qerror.certify import Certificate\n"
        "try: qerror.certify.certify\n"
        "except ImportError as error: print(error)"
    )
    assert run(code).startswith("qerror.certify needs python-flint: pip install 'qerror[certify]'")


def test_the_checker_of_certificates_stands_alone():
    used = {found for found, _ in imports(PACKAGE / "certify" / "checker.py")}
    assert {found for found in used if found.split(".")[0] not in sys.stdlib_module_names} == {"flint"}


def test_unknown_attribute():
    with pytest.raises(AttributeError, match="module 'qerror' has no attribute 'optimal_scales'"):
        _ = qerror.optimal_scales


@pytest.mark.parametrize("name", sorted(SUBPACKAGES))
def test_subpackages_are_attributes(name):
    module = load(f"qerror.{name}")
    assert getattr(qerror, name) is module


EXAMPLES = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_examples_in_docstrings_run(path):
    module = load(dotted(path))
    failed, _ = doctest.testmod(module, optionflags=EXAMPLES)
    assert failed == 0


# README, and the pages of the documentation, each of which stands alone.
TEXT_FILES = [ROOT / "README.md", *sorted((PACKAGE / "docs" / "pages").glob("*.md"))]


def examples_of(path):
    text = path.read_text(encoding="utf-8")
    return doctest.DocTestParser().get_doctest(text, {}, path.name, path.name, 0), "import torch" in text


@pytest.mark.parametrize("path", TEXT_FILES, ids=lambda path: path.stem)
def test_examples_in_texts_run(path, tmp_path, monkeypatch):
    examples, with_torch = examples_of(path)
    if with_torch:
        pytest.importorskip("torch", reason="torch is not installed")
    monkeypatch.chdir(tmp_path)
    failed, tried = doctest.DocTestRunner(optionflags=EXAMPLES).run(examples)
    assert failed == 0
    assert tried == len(examples.examples)
    assert (tmp_path / "model.safetensors").exists() == with_torch


def test_the_readme_has_examples():
    assert len(examples_of(ROOT / "README.md")[0].examples) >= 10


def test_versions_agree():
    assert "version" in pyproject()["project"]["dynamic"]
    assert pyproject()["tool"]["hatch"]["version"]["path"] == "qerror/_version.py"
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (\S+)$", citation, re.MULTILINE)[1] == qerror.__version__
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## \[(\S+)\]", changelog, re.MULTILINE)[1] == qerror.__version__
    assert "2605.17745" in citation


def project_files():
    hidden = {".git", ".ci"}
    for path in ROOT.rglob("*"):
        parts = path.relative_to(ROOT).parts
        if any(part.startswith(".") and part not in hidden for part in parts[:-1]) or ".git" in parts:
            continue
        if path.is_file() and path.suffix in TEXTS and "__pycache__" not in parts:
            yield path


def test_top_level_stays_small():
    allowed = {"qerror", "notebooks", "figures", "tests", "pyproject.toml", "README.md", "LICENSE", "Makefile"}
    allowed |= {"CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md"}
    found = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")} - {"build", "dist"}
    assert found <= allowed


def test_no_private_path_or_host_is_named():
    """What is written here must be true on every machine: no absolute paths of one, no hosts but known ones."""
    absolute = re.compile(r"(?<![\w.~/$])/(?:home|root|Users|tmp|work|mnt|opt|srv|data)/\w")
    url = re.compile(r"https?://([\w.-]+)")
    found = []
    for path in project_files():
        if path == Path(__file__):
            continue
        text = path.read_text(encoding="utf-8")
        hosts = {match[1] for match in url.finditer(text)} - HOSTS
        found += [f"{path.relative_to(ROOT)}: {name}" for name in [*hosts, *absolute.findall(text)]]
    assert found == []


def test_real_data_stay_outside():
    """The development data are found by QERROR_DATA and never committed; what ships is small."""
    shipped = [path for path in PACKAGE.rglob("*") if path.suffix in {".safetensors", ".npy", ".npz"}]
    assert [path.name for path in shipped] == ["digits_mlp.safetensors"]
    assert shipped[0].stat().st_size < 300_000
