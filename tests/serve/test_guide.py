"""The guide's clients run against a service, and its files describe what is there."""

import re
import shlex
import subprocess

import pytest
import yaml

from kronos_lightning.serve.evaluations import read_file
from tests.helpers.documents import blocks, text_of
from tests.helpers.evaluated import HOURS, btc_hours
from tests.helpers.paths import ROOT
from tests.helpers.service import listening, service_of

GUIDE, ADDRESS = "docs/guides/serve.md", "http://127.0.0.1:8000"
LIVE = "docs/guides/live.md"


@pytest.fixture(scope="module")
def service(checkpoint):
    found = service_of(checkpoint)
    found.candles = read_file(HOURS, found.models.current.decision)
    return found


@pytest.fixture(scope="module")
def address(service):
    with listening(service) as found:
        yield found


def test_the_python_client_of_the_guide_prints_a_forecast_or_the_reason(address, tmp_path, monkeypatch, capsys):
    (code,) = blocks(GUIDE, "python")
    (tmp_path / "csv").mkdir()
    monkeypatch.chdir(tmp_path)
    frame = btc_hours().frame.drop(columns="segment")
    frame.to_csv("csv/BTCUSDT_1h.csv", index=False)
    exec(code.replace(ADDRESS, address), {})
    assert capsys.readouterr().out.split()[0] in ("BUY", "SELL", "HOLD")
    frame.drop(index=280).to_csv("csv/BTCUSDT_1h.csv", index=False)
    exec(code.replace(ADDRESS, address), {})
    assert "candles[280].timestamp" in capsys.readouterr().out


@pytest.mark.parametrize("page", [GUIDE, "README.md", "README.zh-CN.md"])
def test_the_curl_lines_of_the_documents_are_answered(page, address):
    lines = [line.split(" #")[0] for block in blocks(page, "bash") for line in block.splitlines() if "curl" in line]
    assert lines
    for line in lines:
        command = line.replace(ADDRESS, address).replace("/SYNTHETIC/", "/BTCUSDT/")
        result = subprocess.run([*shlex.split(command), "-sS", "-f"], capture_output=True, text=True, check=False)
        assert result.returncode == 0, (line, result.stderr)
        assert result.stdout.startswith("{")


def test_the_guides_name_every_endpoint_of_the_schema(service):
    from kronos_lightning.serve.app import create_app

    named = set(re.findall(r"`?(?:GET|POST) (/[\w/{}]+)|`(/[\w/{}]+)`", text_of(GUIDE) + text_of(LIVE)))
    paths = {part for pair in named for part in pair if part}
    assert set(create_app(service).openapi()["paths"]) <= paths


def test_the_compose_file_starts_the_service_with_keys_and_its_metrics_are_read():
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
    service = compose["services"]["kronos"]
    assert (ROOT / "deploy" / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    assert "KRONOS_API_KEYS" in service["environment"]
    assert all(port.startswith("127.0.0.1:") for one in compose["services"].values() for port in one["ports"])
    prometheus = yaml.safe_load((ROOT / "deploy" / "prometheus.yaml").read_text())
    (job,) = prometheus["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["kronos:8000"]}]
    docker = (ROOT / "deploy" / "Dockerfile").read_text()
    assert "--no-index" in docker  # builds without a network
    assert "USER kronos" in docker
