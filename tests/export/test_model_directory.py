"""Publishing: a run becomes a model directory with an honest card, and reaches the Hub only when asked to."""

import base64
import json
import re
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pandas as pd
import pytest
import torch
import yaml

from kronos_lightning import Forecaster, Kronos
from kronos_lightning.data.sources.synthetic import synthetic_candles
from kronos_lightning.export import model_card, model_directory
from kronos_lightning.runs.directory import RunError
from tests.helpers.commands import QUICK_EVALUATE, QUICK_TRAIN, command
from tests.helpers.paths import published_config

MODULE = "kronos_lightning.export"
RUN = "outputs/models/finetune_predictor_sample"
HOSTILE = "<script>alert(1)</script>|[x](javascript:1)`---\n\x1b[2J"


# The command in a process that has its libraries already: what they read of the environment they read again.
EXPORT = """
import importlib, runpy
from huggingface_hub import constants
importlib.reload(constants)
runpy.run_module("kronos_lightning.export", run_name="__main__", alter_sys=True)
"""


class Hub(BaseHTTPRequestHandler):
    """As much of the Hugging Face Hub as an upload needs; what it was sent is in `asked` and `files`."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, self.headers["Authorization"], body))
        if self.path.endswith("/preupload/main"):
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = ["lfs" if name.endswith(".safetensors") else "regular" for name in names]
            parts = zip(names, modes, strict=True)
            self.answer({"files": [{"path": p, "uploadMode": mode, "shouldIgnore": False} for p, mode in parts]})
        elif self.path.endswith("/objects/batch"):
            objects = json.loads(body)["objects"]
            to = f"http://127.0.0.1:{self.server.server_port}/store/"
            self.answer({"objects": [one | {"actions": {"upload": {"href": to + one["oid"]}}} for one in objects]})
        elif self.path.endswith("/commit/main"):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                elif line["key"] == "lfsFile":
                    self.server.files[line["value"]["path"]] = self.server.store[line["value"]["oid"]]
            self.answer(
                {
                    "commitUrl": f"http://127.0.0.1:{self.server.server_port}/someone/kronos-sample/commit/0",
                    "commitOid": "0",
                }
            )
        else:  # creation, and the check of the card's front matter
            refused = self.headers["Authorization"] == "Bearer wrong"
            address = f"http://127.0.0.1:{self.server.server_port}/someone/kronos-sample"
            self.answer({"url": address, "errors": [], "warnings": []}, 401 if refused else 200)

    def do_GET(self):
        self.answer({}, 404)

    def do_PUT(self):
        oid = self.path.rpartition("/")[2]
        self.server.store[oid] = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer({})

    def answer(self, content, status=200):
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.asked, server.files, server.store = [], {}, {}
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.fixture(scope="module")
def cwd(tmp_path_factory):
    """A predictor trained for one epoch, evaluated, exported."""
    cwd = tmp_path_factory.mktemp("export")
    command("train.py", *QUICK_TRAIN, "stage=predictor", "stage.max_epochs=1", cwd=cwd)
    few = ["evaluation.max_cutoffs=20", "calibration.max_cutoffs=30", "calibration.temperatures=[1.0]"]
    command("evaluate.py", *QUICK_EVALUATE, *few, cwd=cwd)
    return cwd


@pytest.fixture
def export(cwd, tmp_path, monkeypatch):
    """Run the command with variables of the environment, expecting that it ends with an error."""

    def run(*arguments, **variables):
        for name, value in ({"HF_HOME": str(cwd / "hf")} | variables).items():
            monkeypatch.setenv(name, value)
        (tmp_path / "export.py").write_text(EXPORT)
        result = command(str(tmp_path / "export.py"), RUN, *arguments, cwd=cwd, check=False)
        assert result.returncode == 1
        return result.stderr

    return run


@pytest.fixture(scope="module")
def exported(cwd, hub):
    environment = {
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_TOKEN": "right", "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(cwd / "hf"),
    }  # fmt: skip
    result = command(MODULE, RUN, "push=someone/kronos-sample", cwd=cwd, env=environment)
    assert "someone/kronos-sample" in result.stderr
    return cwd / "outputs" / "exports" / "finetune_predictor_sample"


def files_in(directory):
    return {str(path.relative_to(directory)) for path in directory.rglob("[!.]*") if path.is_file()}


def test_a_model_directory_is_a_plain_checkpoint_with_all_that_belongs_to_it(exported, cwd):
    assert files_in(exported) == {
        "README.md", "config.json", "model.safetensors", "training.json", "calibration.json", "decision.json",
        "tokenizer/config.json", "tokenizer/model.safetensors",
    }  # fmt: skip
    assert json.loads((exported / "config.json").read_text()).keys() == published_config("Kronos-small").keys()
    trained = Kronos.from_pretrained(cwd / RUN / "checkpoints" / "best_model").state_dict()
    for name, weight in Kronos.from_pretrained(exported).state_dict().items():
        assert torch.equal(weight, trained[name])


def test_what_the_card_says_about_loading_works(exported):
    blocks = re.findall(r"```python\n(.*?)```", (exported / "README.md").read_text(), flags=re.DOTALL)
    assert 'snapshot_download("someone/kronos-sample")' in blocks[0]
    candles = synthetic_candles(60, "1h", "2023-01-01", seed=3, start_price=100.0, volatility=0.8).frame
    names = {"folder": str(exported), "candles": candles}
    exec(blocks[1], names)
    assert isinstance(names["forecaster"], Forecaster)
    assert names["paths"].shape == (1, 100, 4, 6)
    assert "from model import Kronos, KronosPredictor, KronosTokenizer" in blocks[2]  # the published code, not at hand


def test_the_forecast_command_takes_an_exported_directory(exported, cwd):
    candles = synthetic_candles(60, "1h", "2023-01-01", seed=3, start_price=100.0, volatility=0.8).frame
    candles.drop(columns="segment").to_csv(cwd / "candles.csv", index=False)
    size = [a for a in QUICK_TRAIN if a.startswith("model")]
    result = command("kronos_lightning.forecast", "candles.csv", f"predictor={exported}", "horizon=2",
                     "forecast.num_paths=20", *size, cwd=cwd)  # fmt: skip
    assert len(pd.read_csv(cwd / "outputs" / "forecasts" / "candles" / "quantiles.csv")) > 0
    assert "Calibrated on SYNTHETIC" in result.stdout


def test_the_card_tells_what_was_measured_on_what(exported, cwd):
    text = (exported / "README.md").read_text()
    front = yaml.safe_load(text.split("---")[1])
    assert front["license"] == "mit"
    assert {"kronos", "synthetic"} <= set(front["tags"])
    assert "base_model" not in front  # from random weights
    info = json.loads((cwd / RUN / "run_info.json").read_text())
    measured = json.loads((cwd / "outputs/backtest_results/sample/metrics.json").read_text())
    for sentence in (*measured["verdict"], *measured["notices"]):
        assert sentence in text
    assert next(iter(info["data"]["fingerprints"].values())) in text
    for name, value in info["metrics"].items():
        assert f"| {name} | {value:.5g} |" in text
    assert f"| this model | {measured['figures']['model']['crps']:.5g} |" in text
    for message in ("Synthetic candles", "No advice", "| interval | 1h |", "| learning_rate | 2e-05 |", "Licence: MIT"):
        assert message in text


def test_a_push_sends_every_file_as_it_is_into_a_private_repository(exported, hub):
    assert hub.files == {name: (exported / name).read_bytes() for name in files_in(exported)}
    created = next(json.loads(body) for path, _, body in hub.asked if path == "/api/repos/create")
    assert (created["organization"], created["name"], created["visibility"]) == ("someone", "kronos-sample", "private")
    assert {who for _, who, _ in hub.asked} <= {"Bearer right", None}


def test_without_a_push_nothing_leaves_the_machine_and_what_exists_is_not_replaced(exported, export, hub):
    before, written = len(hub.asked), (exported / "README.md").read_text()
    told = export(HF_ENDPOINT=f"http://127.0.0.1:{hub.server_port}", HF_TOKEN="right")
    assert "error: outputs/exports/finetune_predictor_sample: already exists" in told
    assert len(hub.asked) == before
    assert (exported / "README.md").read_text() == written


def test_a_push_without_a_token_or_with_a_wrong_one_is_told_in_a_line(export, cwd, hub):
    before = len(hub.asked)
    for token, message in (
        ("", "no token; set the environment variable HF_TOKEN to a token with write access, or run hf auth login"),
        ("wrong", "to try again: hf upload"),
    ):
        endpoint = f"http://127.0.0.1:{hub.server_port}"
        told = export("push=a/b", "output_dir=elsewhere", HF_ENDPOINT=endpoint, HF_TOKEN=token)
        assert message in told
        assert "Traceback" not in told
        assert (cwd / "elsewhere").exists() == (token == "wrong")
        assert (len(hub.asked) > before) == (token == "wrong")


def test_a_hub_that_cannot_be_reached_is_told_in_a_line(export):
    told = export("push=a/b", "output_dir=unreached", HF_ENDPOINT="http://127.0.0.1:1", HF_TOKEN="right")
    assert "error: push=a/b: ConnectError" in told
    assert "--private" in told
    assert "Traceback" not in told


def test_metrics_of_other_weights_are_never_quoted(cwd, tmp_path, monkeypatch):
    monkeypatch.chdir(cwd)
    config = json.loads((cwd / RUN / "config.json").read_text())
    assert model_directory.evaluation("auto", cwd / RUN, config)["verdict"]
    assert model_directory.evaluation(None, cwd / RUN, config) is None
    other = tmp_path / "run"
    shutil.copytree(cwd / RUN, other)
    weights = other / "checkpoints" / "best_model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert model_directory.evaluation("auto", other, config) is None
    with pytest.raises(RunError, match="evaluates other weights"):
        model_directory.evaluation("outputs/backtest_results/sample", other, config)
    with pytest.raises(RunError, match=r"no .*metrics\.json"):
        model_directory.evaluation("nowhere", cwd / RUN, config)
    info = json.loads((cwd / RUN / "run_info.json").read_text())
    assert "Not measured on a test range" in model_card.render(info, config, None, None)


def test_what_is_no_finished_run_is_refused(cwd, tmp_path):
    with pytest.raises(RunError, match=r"no run_info\.json"):
        model_directory.finished(tmp_path)
    info = json.loads((cwd / RUN / "run_info.json").read_text())
    (tmp_path / "run_info.json").write_text(json.dumps(info | {"status": "running"}))
    with pytest.raises(RunError, match="not finished"):
        model_directory.finished(tmp_path)


@pytest.mark.parametrize(
    ("weights", "before", "base"),
    [
        ("NeoQuasar/Kronos-small", None, "NeoQuasar/Kronos-small"),
        ("/runs/a/best_model", {"initial_weights": "NeoQuasar/Kronos-small"}, "NeoQuasar/Kronos-small"),
        ("/runs/a/best_model", None, None),
        ("random (kronos-tiny size)", None, None),
    ],
)
def test_the_card_names_the_published_weights_that_a_run_descends_from(weights, before, base, cwd):
    info = json.loads((cwd / RUN / "run_info.json").read_text())
    info |= {"initial_weights": weights, "initial_record": before, "synthetic": False}
    config = json.loads((cwd / RUN / "config.json").read_text())
    for stage in ("tokenizer", "predictor"):
        text = model_card.render(info | {"stage": stage}, config, None, None)
        front = yaml.safe_load(text.split("---")[1])
        assert front.get("base_model") == base
        assert "synthetic" not in front["tags"]
        assert ("June 2024" in text) == (base is not None)


def planted(content, text):
    """Return content with a text after each key and each string."""
    if isinstance(content, dict):
        return {f"{key}{text}": planted(value, text) for key, value in content.items()}
    return content + text if isinstance(content, str) else content


def test_no_name_of_a_symbol_or_setting_becomes_markup_in_the_card(cwd):
    info = json.loads((cwd / RUN / "run_info.json").read_text())
    config = json.loads((cwd / RUN / "config.json").read_text())
    info["data"]["fingerprints"] = planted(info["data"]["fingerprints"], HOSTILE)
    info |= {key: planted(info[key], HOSTILE) for key in ("model", "metrics", "settings", "initial_weights")}
    config["data"] |= {key: config["data"][key] + HOSTILE for key in ("name", "interval")}
    text = model_card.render(info, config, None, None)
    assert text.count("alert(1)") > 5
    assert "<script>" not in text
    assert "[x](" not in text.replace("\\[", "")
    assert yaml.safe_load(text.split("---")[1])["license"] == "mit"
