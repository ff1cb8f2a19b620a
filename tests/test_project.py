"""The project holds together: layers, import cost, versions, names that do not belong into it."""

import ast
import doctest
import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import qerror

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "qerror"

# The architecture page, lowest first: a module imports only from its own line or one above. A name covers what lies
# below it unless a longer name of the table does. Modules of one line may use one another.
LAYERS = (
    ("_check", "_threads", "_files"),
    ("results",),
    ("grids",),
    ("densities",),
    ("fine_grids", "high_resolution", "sample_error", "error"),
    ("search", "dot_product"),
    ("tensors",),
    ("evidence", "literature"),
    ("tables", "symbolic", "plotting", "testing", "training", "data"),
    ("cli", "__main__"),
)
# Loaded by nobody who only says `import qerror`.
HEAVY = ("sympy", "matplotlib", "scipy.stats", "scipy.optimize", "torch", "safetensors", "click", "rich")
TEST_ONLY = {"ml_dtypes", "gfloat", "mpmath", "hypothesis", "pytest", "jsonschema"}
# Hosts that the project may point at: papers, licences, format descriptions, and where the data come from.
HOSTS = {
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
}
TEXTS = {".py", ".md", ".toml", ".cff", ".json", ".txt", ".ipynb", ""}


def modules():
    return sorted(path for path in PACKAGE.rglob("*.py"))


def dotted(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(path):
    """Full names of everything that a file imports outside of `if TYPE_CHECKING`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    hidden = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test).endswith("TYPE_CHECKING")
        for node in ast.walk(block)
    }
    package = dotted(path).split(".") if path.name == "__init__.py" else dotted(path).split(".")[:-1]
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            stem = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*stem, *([node.module] if node.module else [])])
            # `from qerror import grids` means the module; `from qerror.grids import Grid` a name in it.
            yield from (f"{base}.{alias.name}" if base == "qerror" or not node.module else base for alias in node.names)


def layer(module):
    first = module.removeprefix("qerror").lstrip(".").split(".")[0]
    return next((number for number, names in enumerate(LAYERS) if first in names), None)


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_imports_only_go_up_the_architecture(path):
    own = layer(dotted(path))
    inside = {name for name in imported_modules(path) if name.split(".")[0] == "qerror"}
    if dotted(path) == "qerror":
        assert not inside, "the package itself imports nothing: its names are lazy"
        return
    assert own is not None, f"{dotted(path)} has no line in the architecture"
    for name in inside - {"qerror.__version__"}:
        # Only the command line reads the package's own lazy names.
        if name == "qerror" or layer(name) is None:
            assert own == len(LAYERS) - 1, f"{dotted(path)} imports {name}: import from the module that has it"
            continue
        assert layer(name) <= own, f"{dotted(path)} imports {name}, which is below it"


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_package_imports_only_declared_dependencies(path):
    declared = {re.split(r"[<>=~! ]", text)[0] for text in pyproject()["project"]["dependencies"]}
    extras = {"training": {"torch", "sklearn"}, "testing": {"hypothesis"}, "data": {"sklearn"}}
    optional = set().union(*(extras[part] for part in path.parts if part in extras))
    known = sys.stdlib_module_names | declared | optional | {"qerror"}
    assert {name.split(".")[0] for name in imported_modules(path)} <= known


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


def test_lazy_table_names_the_same_modules_as_the_type_checker_sees():
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {(node.module, alias.name) for node in block.body for alias in node.names}
    assert seen == {(home, name) for home, names in qerror._HOMES.items() for name in names}
    assert {name for _, name in seen} | {"__version__"} == set(qerror.__all__)


def test_training_without_torch_says_what_to_install():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import qerror\n"
        "try: qerror.training\n"
        "except ImportError as error: print(error)"
    )
    assert run(code).startswith("qerror.training needs PyTorch: pip install 'qerror[torch]'")


def test_unknown_attribute():
    with pytest.raises(AttributeError, match="module 'qerror' has no attribute 'optimal_scales'"):
        _ = qerror.optimal_scales


@pytest.mark.parametrize("name", sorted(qerror._SUBPACKAGES))
def test_subpackages_are_attributes(name):
    module = load(f"qerror.{name}")
    assert getattr(qerror, name) is module


EXAMPLES = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_examples_in_docstrings_run(path):
    module = load(dotted(path))
    failed, _ = doctest.testmod(module, optionflags=EXAMPLES)
    assert failed == 0


def run_readme(*, with_torch):
    """Run the examples of the sections that import torch, or of the others; failed, tried."""
    sections = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## ")
    text = "\n".join(section for section in sections if ("import torch" in section) == with_torch)
    examples = doctest.DocTestParser().get_doctest(text, {}, "README.md", "README.md", 0)
    return doctest.DocTestRunner(optionflags=EXAMPLES).run(examples)


def test_examples_in_the_readme_run():
    failed, tried = run_readme(with_torch=False)
    assert failed == 0
    assert tried >= 10


def test_examples_of_training_in_the_readme_run(tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="torch is not installed")
    monkeypatch.chdir(tmp_path)
    failed, tried = run_readme(with_torch=True)
    assert failed == 0
    assert tried >= 5
    assert (tmp_path / "model.safetensors").exists()


def test_versions_agree():
    assert "version" in pyproject()["project"]["dynamic"]
    assert pyproject()["tool"]["hatch"]["version"]["path"] == "qerror/__init__.py"
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
    allowed |= {"CHANGELOG.md", "CITATION.cff"}
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
