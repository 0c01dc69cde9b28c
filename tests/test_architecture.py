"""The floors of the house: who may import whom, one name for one thing, files of one concept."""

import ast
from collections import Counter

import pytest

from tests.helpers.paths import ROOT

PACKAGE = ROOT / "kronos_lightning"
FLOORS = {  # from the ground up: each package, and all those that it imports
    "settings": set(),  # the ground: two packages that need no other
    "storage": set(),
    "model": {"settings"},
    "plotting": {"settings"},
    "data": {"settings", "storage"},
    "backtest": {"settings"},  # works on arrays: no candle frame, no network
    "forecast": {"settings", "storage", "model", "plotting", "data"},
    "config": {"settings", "model", "data", "backtest", "forecast"},  # whose settings it checks
    "training": {"storage", "model", "data", "forecast", "config"},
    "evaluation": {"settings", "data", "forecast"},  # forecasts of any origin: no network, no run
    "runs": {"settings", "storage", "model", "data", "forecast", "config", "training"},
    "export": {"settings", "storage", "model", "plotting", "data", "forecast", "runs"},
    "pipeline": {"settings", "storage", "model", "data", "backtest", "forecast", "config", "evaluation", "runs"},
    "live": {"settings", "storage", "data", "backtest", "forecast", "config", "evaluation", "pipeline"},
    "serve": {"settings", "data", "forecast", "config", "pipeline", "live"},
    "sweeps": {"settings", "storage", "plotting", "config", "runs"},
    "reporting": {
        "storage",
        "model",
        "plotting",
        "data",
        "backtest",
        "forecast",
        "config",
        "evaluation",
        "runs",
        "pipeline",
    },
    "cli": {
        "settings",
        "storage",
        "plotting",
        "data",
        "backtest",
        "forecast",
        "config",
        "evaluation",
        "runs",
        "export",
        "pipeline",
        "reporting",
        "live",
        "serve",
    },
}
LIBRARIES = {  # that a package does without
    "settings": {"torch", "lightning", "hydra", "omegaconf"},
    "storage": {"torch", "lightning", "hydra", "omegaconf", "numpy", "pandas", "pydantic"},
    "model": {"lightning", "hydra", "omegaconf", "pandas"},
    "plotting": {"torch", "lightning", "hydra", "omegaconf", "pandas"},
    "data": {"hydra", "omegaconf"},
    "backtest": {"torch", "lightning", "hydra", "omegaconf"},
    "forecast": {"lightning", "hydra", "omegaconf"},
    "training": {"hydra", "omegaconf"},
    "evaluation": {"hydra", "omegaconf"},
    "reporting": {"hydra", "omegaconf", "lightning"},
}
FILES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
names = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))


def imports(path):
    """Absolute names of everything that a file imports, ``from a import b`` as a.b."""
    inside = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = inside[: len(inside) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


@names
def test_a_file_imports_from_the_floors_below_alone(path):
    own = path.relative_to(PACKAGE).parts[0]
    for name in imports(path):
        library, *parts = name.split(".")
        if library != "kronos_lightning":
            assert library not in LIBRARIES.get(own, set()), f"{path} imports {name}"
        elif parts and (PACKAGE / parts[0]).is_dir():
            assert parts[0] in FLOORS.get(own, set()) | {own}, f"{path} imports {name}, which is not below it"
        else:  # of the root: the errors, and for the place of the package the package itself
            assert parts in ([], ["errors", "KronosError"]), f"{path} imports {name}"


def test_the_floor_plan_shows_every_import_and_no_other():
    real = {package: set() for package in FLOORS}
    for path in FILES:
        own = path.relative_to(PACKAGE).parts[0]
        for library, *parts in (name.split(".") for name in imports(path)):
            if library == "kronos_lightning" and parts and parts[0] in FLOORS.keys() - {own}:
                real[own].add(parts[0])
    assert real == FLOORS


def test_the_floor_plan_goes_upwards_so_that_no_imports_go_round():
    below = set()
    for package, imported in FLOORS.items():
        assert imported <= below, f"{package} stands on {imported - below}"
        below.add(package)


def test_every_package_has_its_floor_and_the_root_holds_nothing_else():
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert packages == set(FLOORS)
    others = {path.name for path in PACKAGE.iterdir()} - packages - {"__pycache__"}
    assert others == {"__init__.py", "errors.py", "py.typed"}


def test_a_class_name_means_one_thing():
    classes = Counter(
        node.name for path in FILES for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)
    )
    assert [name for name, count in classes.items() if count > 1] == []


@pytest.mark.parametrize("path", [*FILES, *TESTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_no_longer_than_one_concept(path):
    assert len(path.read_text().splitlines()) <= 400


PUBLISHED = {  # signatures and configurations that others have set
    "KronosTokenizer.__init__",
    "Kronos.__init__",
    "BinarySphericalQuantizer.__init__",
    "KronosPredictor.predict",
    "KronosPredictor.predict_batch",
    "Forecaster.predict_df",
}


def functions(tree, owner=""):
    """Each function of a file by its qualified name."""
    for node in ast.iter_child_nodes(tree):
        name = f"{owner}.{node.name}".lstrip(".") if hasattr(node, "name") and isinstance(node.name, str) else owner
        if isinstance(node, ast.FunctionDef):
            yield name, node
        yield from functions(node, name)


@names
def test_a_function_takes_eight_parameters_at_most(path):
    for name, node in functions(ast.parse(path.read_text())):
        parameters = [one.arg for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        if name not in PUBLISHED:
            assert len([one for one in parameters if one not in ("self", "cls")]) <= 8, name


def test_no_test_imports_another_test():
    for path in TESTS:
        for name in imports(path):
            shared = "tests.helpers.", "tests.benchmarks.gpu."  # the kit is a program, not a test
            assert not name.startswith("tests.") or name.startswith(shared), f"{path} imports {name}"


@names
def test_no_docstring_opens_with_a_question(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            first = (ast.get_docstring(node) or "").split(" ")[0]
            assert first not in {"What", "Those", "That", "Whether", "How", "Which", "So"}, ast.get_docstring(node)
