from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGES = ("umrgen_core", "umrgen_api", "umrgen_infer", "umrgen_cli", "umrgen_client", "umrgen_mcp")
HEAVY = {"torch", "diffusers", "transformers"}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}
OF = {package: [name for name in MODULES if name.split(".")[0] == package] for package in PACKAGES}


def is_type_checking(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def list_targets(node: ast.Import | ast.ImportFrom) -> list[str]:
    """Full dotted names of what one statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    assert node.level == 0, "relative import"
    return [f"{node.module}.{alias.name}" for alias in node.names]


def list_imports(name: str) -> list[tuple[str, bool]]:
    """(what is imported, whether inside a function) in all of a module; what only a type checker sees is left out."""
    found: list[tuple[str, bool]] = []

    def visit(node: ast.AST, inside: bool) -> None:
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.extend((target, inside) for target in list_targets(node))
        inside = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        children = node.orelse if isinstance(node, ast.stmt) and is_type_checking(node) else ast.iter_child_nodes(node)
        for child in children:
            visit(child, inside)

    visit(ast.parse(MODULES[name].read_text(encoding="utf-8")), inside=False)
    return found


def list_roots(name: str) -> set[str]:
    return {target.split(".")[0] for target, _ in list_imports(name)}


def to_module(target: str) -> str | None:
    """The module of this project that an import names, itself or by one of its members."""
    if target in MODULES:
        return target
    parent = target.rpartition(".")[0]
    return parent if parent in MODULES else None


def test_there_is_something_to_look_at() -> None:
    assert len(OF["umrgen_core"]) > 20
    assert len(OF["umrgen_api"]) > 10
    assert len(OF["umrgen_infer"]) > 5
    assert "pysqlite3" in list_roots("umrgen_core.sqlite")


@pytest.mark.parametrize("name", OF["umrgen_core"])
def test_the_core_knows_neither_web_nor_pictures_nor_torch(name: str) -> None:
    forbidden = {"aiohttp", "PIL", "numpy", *HEAVY, "umrgen_api", "umrgen_infer"}
    assert not list_roots(name) & forbidden


@pytest.mark.parametrize("name", OF["umrgen_api"])
def test_the_web_tier_knows_no_torch_and_decodes_pictures_only_in_its_child(name: str) -> None:
    forbidden = {"numpy", *HEAVY, "umrgen_infer"}
    assert not list_roots(name) & forbidden
    assert "PIL" not in list_roots(name) or name == "umrgen_api.sanitiser"


@pytest.mark.parametrize("name", OF["umrgen_api"])
def test_nothing_in_the_web_tier_imports_the_sanitisers_child(name: str) -> None:
    assert "umrgen_api.sanitiser" not in {to_module(target) for target, _ in list_imports(name)}


@pytest.mark.parametrize("name", OF["umrgen_infer"])
def test_the_daemon_knows_no_web_and_loads_torch_only_for_its_pipelines(name: str) -> None:
    assert not list_roots(name) & {"aiohttp", "umrgen_api"}
    if not name.startswith("umrgen_infer.pipelines.") and name != "umrgen_infer.images":
        assert not list_roots(name) & HEAVY


@pytest.mark.parametrize("name", [*OF["umrgen_client"], *OF["umrgen_cli"]])
def test_the_client_knows_no_torch_and_no_tier(name: str) -> None:
    assert not list_roots(name) & {*HEAVY, "umrgen_infer", "umrgen_api"}


@pytest.mark.parametrize("name", OF["umrgen_client"])
def test_the_python_client_speaks_http_only(name: str) -> None:
    assert not list_roots(name) & {"umrgen_core", "umrgen_cli", "umrgen_mcp", "aiohttp", "pydantic", "PIL"}


@pytest.mark.parametrize("name", OF["umrgen_mcp"])
def test_the_mcp_server_reaches_the_service_through_the_client_alone(name: str) -> None:
    core = {to_module(target) for target, _ in list_imports(name)} & set(OF["umrgen_core"])
    assert core <= {"umrgen_core.config", "umrgen_core.errors", "umrgen_core.logs"}
    assert not list_roots(name) & {*HEAVY, "umrgen_infer", "umrgen_api", "umrgen_cli", "aiohttp"}


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {name: {to_module(target) for target, _ in list_imports(name)} - {None, name} for name in MODULES}
    TopologicalSorter(graph).prepare()  # raises CycleError with the modules of the cycle


def test_one_import_alone_is_inside_a_function() -> None:
    inside = {(name, target) for name in MODULES for target, deep in list_imports(name) if deep}
    assert inside == {("umrgen_infer.__main__", "umrgen_infer.pipelines.load.load_painter")}


def list_loaded(module: str, unwanted: set[str]) -> set[str]:
    """Which of `unwanted` a fresh process has loaded after importing `module`."""
    code = f"import sys, {module}; print(*({unwanted!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_web_tier_starts_without_torch_pictures_or_migrations() -> None:
    unwanted = {*HEAVY, "numpy", "sqlalchemy", "alembic", "PIL", "umrgen_infer"}
    assert list_loaded("umrgen_api.app", unwanted) == set()
    assert list_loaded("umrgen_api.sanitiser", {"PIL"}) == {"PIL"}


def test_the_daemon_announces_itself_before_it_loads_torch() -> None:
    assert list_loaded("umrgen_infer.__main__", {*HEAVY, "sqlalchemy", "alembic", "aiohttp"}) == set()
