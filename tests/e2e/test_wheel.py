"""The wheel: installed outside of a clone, its commands find their configuration."""

import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import EntryPoint

import pytest

import kronos_lightning
from tests.helpers.commands import shell_variables
from tests.helpers.paths import GOLDEN, ROOT


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Folder with the files of the wheel, as pip would unpack them."""
    folder = tmp_path_factory.mktemp("wheel")
    build = "import hatchling.build, sys; print(hatchling.build.build_wheel(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", build, str(folder)], cwd=ROOT, capture_output=True, check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(installed, cwd, module, *arguments):
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=cwd,
        env=shell_variables(installed),
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_holds_the_configuration_and_the_package_alone(installed):
    conf = {path.relative_to(ROOT / "conf") for path in (ROOT / "conf").rglob("*.yaml")}
    inside = installed / "kronos_lightning" / "conf"
    assert {path.relative_to(inside) for path in inside.rglob("*.yaml")} == conf
    version = kronos_lightning.__version__
    assert {path.name for path in installed.iterdir()} == {
        "kronos_lightning", "hydra_plugins", f"kronos_lightning-{version}.dist-info"
    }  # fmt: skip


def test_every_console_script_names_a_function():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert set(scripts) == {
        f"kronos-{name}" for name in ("doctor", "download", "export", "forecast", "leakcheck", "live", "serve")
    }
    for name, target in scripts.items():
        assert callable(EntryPoint(name, target, "console_scripts").load())


def test_its_commands_work_outside_of_a_clone(installed, tmp_path, guide_csv):
    examined = run(installed, tmp_path, "kronos_lightning.data.doctor", str(guide_csv))
    assert "Verdict:" in examined.stdout, examined.stderr
    networks = [f"predictor={GOLDEN / 'tiny-predictor'}", f"tokenizer={GOLDEN / 'tiny-tokenizer'}"]
    few = ["horizon=2", "lookback=30", "forecast.num_paths=3", "device=cpu"]
    forecast = run(installed, tmp_path, "kronos_lightning.forecast", str(guide_csv), *networks, *few)
    assert forecast.returncode == 0, forecast.stderr
    assert (tmp_path / "outputs" / "forecasts" / "candles" / "quantiles.csv").is_file()
