"""Who may import whom."""

import ast

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "kronos_lightning"
ALLOWED = {
    "model": set(),
    "data": set(),
    "forecast": {"data", "model"},
    "training": {"data", "model", "forecast"},
    "evaluation": {"data", "forecast"},
    "backtest": set(),
}
FORBIDDEN = {
    "model": {"lightning", "hydra", "omegaconf", "pandas", "pydantic"},
    "forecast": {"lightning", "hydra", "omegaconf"},
    "data": {"hydra", "omegaconf"},
    "training": {"hydra", "omegaconf"},
    "evaluation": {"hydra", "omegaconf"},
    "backtest": {"torch", "lightning", "hydra", "omegaconf"},
}


def imports(path):
    """Absolute names of the modules a file imports."""
    inside = ["kronos_lightning", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = inside[: len(inside) - node.level + 1] if node.level else []
            yield ".".join([*base, *([node.module] if node.module else [])])


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_import_only_what_stands_below_them(package):
    for path in (PACKAGE / package).rglob("*.py"):
        if path.name == "__main__.py":
            continue  # a command: it stands above all packages
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "kronos_lightning":
                assert len(parts) > 1, f"{path} imports the package's top"
                assert parts[1] in ALLOWED[package] | {package}, f"{path} imports {name}"
            assert parts[0] not in FORBIDDEN[package], f"{path} imports {name}"


def test_every_package_has_its_rule():
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == set(ALLOWED)


def test_no_file_is_longer_than_one_concept():
    long = {str(path): n for path in PACKAGE.rglob("*.py") if (n := len(path.read_text().splitlines())) > 400}
    assert long == {}
