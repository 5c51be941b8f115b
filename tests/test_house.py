"""The house stands: who imports whom, read from the sources without running them, and where the tests of a module are.

Every check is tried on a small tree that breaks its rule: one that cannot fail would be worth nothing.
"""

import ast
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
# A package stands above all it imports.
MAY_IMPORT = {
    "pretrain": {"pretrain"},
    "embeddings": {"embeddings", "pretrain"},
    "baselines": {"baselines", "pretrain"},
    "downstream": {"downstream", "baselines", "embeddings", "pretrain"},
    "heldout": {"heldout", "downstream", "baselines", "embeddings", "pretrain"},
}
STAND_INS = "stand_ins"
WITHOUT_TESTS = "tests/modules_without_tests.txt"
# Modules that import others of the project while they run, and why.
LAZY = {
    "heldout": "torch takes a second, and a name is imported when it is asked for",
    "pretrain.doctor": "it has to answer where numpy is missing",
}


def sources(root: Path) -> dict[str, Path]:
    """The files of the installed packages by module name; a package's `__init__` has the package's."""
    paths = [path for name in MAY_IMPORT for path in [*root.glob(f"{name}.py"), *root.glob(f"{name}/**/*.py")]]
    return {".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def tree_of(path: Path) -> ast.Module:
    """A module's syntax tree without what it does when its file is typed: another process begins there."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if not (isinstance(node, ast.If) and "__main__" in ast.dump(node.test))]
    return tree


def imported(tree: ast.AST) -> Iterator[str]:
    """Dotted names that a tree imports, wherever it does: in functions, for annotations, by `import_module("name")`.
    `from a import b` gives a.b, whether b is a module or a name in one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (argument.value for argument in node.args if isinstance(argument, ast.Constant))


def modules_of(names: Iterable[str], modules: Iterable[str]) -> set[str]:
    """Those of `modules` that the dotted names are, or are names in."""
    return {name if name in modules else name.rpartition(".")[0] for name in names} & {*modules}


def graph(root: Path) -> dict[str, set[str]]:
    """Every module with the modules of the packages that it imports."""
    modules = sources(root)
    return {name: modules_of(imported(tree_of(path)), modules) - {name} for name, path in modules.items()}


def circle(edges: dict[str, set[str]]) -> list[str]:
    """One import circle, or nothing."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def forbidden(root: Path) -> list[str]:
    """Imports that run up or across between packages, or into scripts or tests. (A stand-in bears the name of a package
    from outside, which may be imported.)"""
    paths = [*root.glob("tests/*.py"), *root.glob("scripts/**/*.py")]
    outside = {"scripts", "tests", *(path.stem for path in paths if path.parent.name != STAND_INS)}
    wrong = []
    for name, path in sources(root).items():
        package = name.partition(".")[0]
        barred = {*MAY_IMPORT, *outside} - MAY_IMPORT[package]
        tops = {other.partition(".")[0] for other in imported(tree_of(path))}
        wrong += [f"{name} imports {top}" for top in sorted(tops & barred)]
    return wrong


def inside_functions(root: Path) -> list[str]:
    """Imports of the project's modules that wait for a function to be called."""
    modules = sources(root)
    wrong = []
    for name, path in modules.items():
        functions = [n for n in ast.walk(tree_of(path)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
        found = modules_of((other for function in functions for other in imported(function)), modules)
        wrong += [f"{name} imports {other}" for other in sorted(found) if name not in LAZY]
    return wrong


def untested(root: Path) -> list[str]:
    """Modules without a test file of their own name and without a reason for that; reasons that are none."""
    lines = (root / WITHOUT_TESTS).read_text().splitlines()
    reasons = dict(line.partition(": ")[::2] for line in lines)
    wrong = [] if lines == sorted(lines) else ["the list is not sorted"]
    wrong += [f"{path}: no reason" for path, reason in reasons.items() if not reason.strip()]
    modules = [path.relative_to(root) for path in sources(root).values() if path.name != "__init__.py"]
    for module in modules:
        has_test = (root / "tests" / module.with_name(f"test_{module.name}")).is_file()
        if has_test == (module.as_posix() in reasons):
            wrong.append(f"{module.as_posix()}: " + ("has tests and is in the list" if has_test else "no tests"))
    return wrong + [f"{path}: no such module" for path in sorted({*reasons} - {path.as_posix() for path in modules})]


def test_the_graph_is_that_of_the_whole_project():
    edges = graph(REPOSITORY)
    assert len(edges) > 100 and "pretrain.command" in edges["heldout"]
    assert "pretrain.encoder" in edges["downstream.methods.padim"] | edges["downstream.methods.patch_method"]


def test_no_import_runs_in_a_circle():
    assert circle(graph(REPOSITORY)) == []


def test_no_import_runs_up_or_across_or_into_scripts_and_tests():
    assert forbidden(REPOSITORY) == []


def test_no_function_imports_a_module_of_the_project():
    assert inside_functions(REPOSITORY) == []


def test_every_module_has_tests_or_a_reason_to_have_none():
    assert untested(REPOSITORY) == []


@pytest.fixture
def house(tmp_path):
    """A tree that keeps every rule, and a function that writes another file into it."""

    def write(path: str, text: str = "") -> Path:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
        return tmp_path

    for package in ("pretrain", "embeddings", "baselines", "downstream"):
        write(f"{package}/__init__.py")
        write(f"tests/{package}/test_a.py")
    write("pretrain/a.py", "import torch\n")
    write("embeddings/a.py", "from pretrain.a import x\n")
    write("baselines/a.py", "from pretrain import a\n")
    write(
        "downstream/a.py",
        "import baselines.a, embeddings.a\nif __name__ == '__main__':\n    from downstream.a import b\n",
    )
    write("heldout.py", "from downstream import a\ndef f():\n    from pretrain import a\n")
    write("tests/test_heldout.py")
    write("tests/helper.py")
    write(WITHOUT_TESTS)
    return write


def test_a_tree_that_keeps_the_rules_passes(house):
    root = house("scripts/b.py", "from downstream import a\nimport helper\n")
    assert circle(graph(root)) == forbidden(root) == inside_functions(root) == untested(root) == []
    assert graph(root)["downstream.a"] == {"baselines.a", "embeddings.a"}


@pytest.mark.parametrize(
    "back",
    ["from pretrain.a import y\n", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pretrain import a\n",
     "def f():\n    import pretrain.a\n", "g = lambda: import_module('pretrain.a')\n"],
)  # fmt: skip
def test_a_circle_is_found(house, back):
    house("pretrain/a.py", "import pretrain.b\n")
    assert {*circle(graph(house("pretrain/b.py", back)))} == {"pretrain.a", "pretrain.b"}


@pytest.mark.parametrize(
    ("path", "text"),
    [("pretrain/b.py", "from embeddings import a\n"), ("embeddings/b.py", "import downstream.a\n"),
     ("embeddings/b.py", "from baselines.a import x\n"), ("baselines/b.py", "from embeddings.a import x\n"),
     ("downstream/b.py", "import heldout\n"), ("downstream/b.py", "from scripts.b import x\n"),
     ("downstream/b.py", "def f():\n    import helper\n"), ("heldout.py", "from tests import helper\n")],
)  # fmt: skip
def test_an_import_up_or_across_is_found(house, path, text):
    assert len(forbidden(house(path, text))) == 1


@pytest.mark.parametrize(
    "text", ["def f():\n    from pretrain import a\n", "class A:\n    async def f():\n        import pretrain.a\n"]
)
def test_an_import_inside_a_function_is_found(house, text):
    assert inside_functions(house("downstream/b.py", text)) == ["downstream.b imports pretrain.a"]


@pytest.mark.parametrize(
    ("path", "text", "problem"),
    [("pretrain/data/b.py", "", "pretrain/data/b.py: no tests"),
     (WITHOUT_TESTS, "pretrain/a.py: small\n", "pretrain/a.py: has tests and is in the list"),
     (WITHOUT_TESTS, "pretrain/gone.py: small\n", "pretrain/gone.py: no such module")],
)  # fmt: skip
def test_a_module_without_tests_is_found(house, path, text, problem):
    assert untested(house(path, text)) == [problem]


def test_a_list_without_reasons_or_order_is_found(house):
    for name in "bc":
        house(f"pretrain/{name}.py")
    assert untested(house(WITHOUT_TESTS, "pretrain/b.py: small\npretrain/c.py: \n")) == ["pretrain/c.py: no reason"]
    assert untested(house(WITHOUT_TESTS, "pretrain/c.py: small\npretrain/b.py: small\n")) == ["the list is not sorted"]
