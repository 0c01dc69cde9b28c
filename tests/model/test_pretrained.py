"""Checkpoint directories and the Hub."""

import ast
import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
import torch
from safetensors.torch import load_file, save_file

from kronos_lightning import Kronos, KronosTokenizer
from kronos_lightning.model import CheckpointError
from tests.helpers.networks import TINY_PREDICTOR
from tests.helpers.paths import GOLDEN


def test_what_is_saved_is_what_the_reference_saves(tmp_path, golden_tokenizer, golden_predictor):
    for network, name in ((golden_tokenizer, "tiny-tokenizer"), (golden_predictor, "tiny-predictor")):
        network.save_pretrained(tmp_path / name)
        for file in ("config.json",):
            assert json.loads((tmp_path / name / file).read_text()) == json.loads((GOLDEN / name / file).read_text())
        ours, theirs = (load_file(root / name / "model.safetensors") for root in (tmp_path, GOLDEN))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_loaded_network_is_in_eval_mode_and_equal(tmp_path, tiny_predictor):
    tiny_predictor.save_pretrained(tmp_path)
    loaded = Kronos.from_pretrained(tmp_path)
    assert not any(module.training for module in loaded.modules())
    assert loaded.config == TINY_PREDICTOR
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), tiny_predictor.parameters(), strict=True))


def damage(directory, change):
    weights = load_file(directory / "model.safetensors")
    change(weights)
    save_file(weights, directory / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: damage(d, lambda w: w.pop("norm.weight")), "Missing key.*norm.weight"),
        (lambda d: damage(d, lambda w: w.update(more=torch.ones(1))), "Unexpected key.*more"),
        (lambda d: damage(d, lambda w: w.update({"norm.weight": torch.ones(3)})), "size mismatch.*norm.weight"),
        (lambda d: (d / "model.safetensors").write_bytes(b"no weights"), "do not fit"),
        (lambda d: (d / "model.safetensors").unlink(), "missing; a checkpoint directory holds"),
        (lambda d: (d / "config.json").unlink(), "missing; a checkpoint directory holds"),
        (lambda d: (d / "config.json").write_text("{"), "does not describe a Kronos"),
        (lambda d: (d / "config.json").write_text(json.dumps(TINY_PREDICTOR | {"n_layer": 1})), "n_layer"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path, tiny_predictor, change, message):
    tiny_predictor.save_pretrained(tmp_path)
    change(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        Kronos.from_pretrained(tmp_path)


def test_a_pickle_beside_a_missing_safetensors_file_is_not_read(tmp_path, tiny_predictor):
    tiny_predictor.save_pretrained(tmp_path)
    torch.save(tiny_predictor.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="missing"):
        Kronos.from_pretrained(tmp_path)


def test_a_missing_local_directory_is_said_to_be_one(tmp_path):
    with pytest.raises(CheckpointError, match="no such directory"):
        KronosTokenizer.from_pretrained(tmp_path / "nowhere")


class Hub(BaseHTTPRequestHandler):
    """The few answers of a Hugging Face endpoint that a download needs, from a folder of checkpoints."""

    root = None
    revisions: ClassVar[list[str]] = []

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, body):
        owner, name, _, revision, file = (*self.path.lstrip("/").split("/", 4), *[""] * 5)[:5]
        path = self.root / owner / name / file
        if revision:
            type(self).revisions.append(revision)
        if not path.is_file():
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = path.read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *args):
        """Keep the tests quiet."""


@pytest.fixture
def hub(tmp_path):
    Hub.root, Hub.revisions = tmp_path / "hub", []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def load_in_new_process(endpoint, cache, name, revision):
    """Without the half minute in which the Hub's client waits between its tries."""
    code = (
        "import time; time.sleep = lambda seconds: None; from kronos_lightning import Kronos; "
        f"print(Kronos.from_pretrained({name!r}, revision={revision!r}).config)"
    )
    environment = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)


def test_a_hub_name_is_loaded_at_its_pinned_revision(tmp_path, tiny_predictor, hub):
    tiny_predictor.save_pretrained(tmp_path / "hub" / "owner" / "tiny")
    result = load_in_new_process(hub, tmp_path / "cache", "owner/tiny", "abc123")
    assert ast.literal_eval(result.stdout) == TINY_PREDICTOR, result.stderr
    assert set(Hub.revisions) == {"abc123"}


def test_an_unreachable_hub_gives_one_message_with_three_ways_out(tmp_path):
    result = load_in_new_process("http://127.0.0.1:9", tmp_path / "cache", "owner/tiny", "abc123")
    last = result.stderr.strip().splitlines()[-1]
    assert "CheckpointError: cannot get owner/tiny at revision abc123" in last
    assert "model.pretrained.predictor=DIR" in last
    assert "HF_ENDPOINT" in last
    assert "model.pretrained=null" in last


def test_a_tokenizer_in_place_of_a_predictor_is_told(tmp_path, tiny_tokenizer):
    tiny_tokenizer.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="it describes a KronosTokenizer; are tokenizer and predictor exchanged"):
        Kronos.from_pretrained(tmp_path)
