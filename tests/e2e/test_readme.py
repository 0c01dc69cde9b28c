"""The README tells the truth about commands and settings."""

import re
import shlex
import subprocess

import pytest
from omegaconf.errors import ConfigKeyError

from kronos_lightning.cli.download import as_lists
from kronos_lightning.cli.entry import file_as_override
from tests.helpers.configuration import CHECKS, composed
from tests.helpers.paths import ROOT

MODULES = {  # configuration and reading of the command line
    "kronos_lightning.forecast": ("forecast", file_as_override),
    "kronos_lightning.data.doctor": ("doctor", file_as_override),
    "kronos_lightning.export": ("export", lambda arguments: file_as_override(arguments, "run")),
    "kronos_lightning.data.binance": ("download", as_lists),
    "kronos_lightning.evaluation.leakcheck": ("evaluate", lambda arguments: arguments),
}


def readme_commands(name):
    text = (ROOT / name).read_text()
    blocks = re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
    lines = [line.split(" #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith(("python ", "make "))]


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_every_python_command_of_the_readme_is_valid(name):
    """Composes and checks each command; data files and published weights are not at hand here."""
    commands = [shlex.split(line) for line in readme_commands(name) if line.startswith("python ")]
    assert len(commands) >= 5
    for _, script, *arguments in commands:
        if script == "-m" and arguments[0].startswith("kronos_lightning."):
            name, overrides = MODULES[arguments[0]]
            CHECKS[name](composed(name, *overrides(arguments[1:])))
            continue
        swept = [a for a in arguments if not a.startswith("-")]
        first_of_sweep = [re.sub(r"=([^\[,]+),.*", r"=\1", a) for a in swept]
        CHECKS[script.removesuffix(".py")](composed(script.removesuffix(".py"), *first_of_sweep))


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_every_make_target_of_the_readme_exists(name):
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = {line.split()[0] for line in shown.splitlines()}
    assert {line.split()[1] for line in readme_commands(name) if line.startswith("make ")} <= targets
    assert {"demo", "test", "lint", "format", "bench", "clean", "help"} <= targets


def settings_table(name, title):
    table = (ROOT / name).read_text().split(f"## {title}")[1].split("\n## ")[0]
    return re.findall(r"^\| `([a-z_.0-9/]+)`", table, flags=re.MULTILINE)


def test_both_readmes_name_the_same_settings_and_modules():
    assert settings_table("README.md", "Settings that matter") == settings_table("README.zh-CN.md", "重要设置")
    for name, title in (("README.md", "Map of the code"), ("README.zh-CN.md", "代码地图")):
        shown = (ROOT / name).read_text().split(f"## {title}")[1].split("\n## ")[0]
        packages = {path.parent.name for path in (ROOT / "kronos_lightning").glob("*/__init__.py")}
        assert {package for package in packages if not re.search(rf"\b{package}/", shown)} == set()


def test_the_readme_settings_table_names_real_keys():
    train, evaluate = composed("train", "stage=predictor"), composed("evaluate")
    keys = settings_table("README.md", "Settings that matter")
    assert len(keys) >= 12
    for key in keys:
        node = train
        try:
            for part in key.split("."):
                node = node[part]
        except ConfigKeyError:
            node = evaluate
            for part in key.split("."):
                node = node[part]
