"""JSON files from anywhere: each is read as it is written or refused in one sentence; no value leads to a traceback."""

import json
import os

import pytest

from kronos_lightning.data.sources.binance.stored_series import StoredSeries
from kronos_lightning.errors import KronosError
from kronos_lightning.export.model_directory import configuration, evaluation, finished
from kronos_lightning.forecast.calibration import Calibration
from kronos_lightning.model.pretrained import read_record, trained_with_volume
from kronos_lightning.runs.checkpoint_lookup import find_finished
from kronos_lightning.runs.directory import read_info, read_state
from kronos_lightning.runs.provenance import trained_until
from kronos_lightning.sweeps.results import Record, best, table_of

RANGES = {split: ["2023-01-01", "2023-02-01"] for split in ("train", "val", "test")}
RECORD = {
    "stage": "predictor", "initial_weights": "owner/name", "random": False, "initial_record": None, "synthetic": False,
    "data": {"fingerprints": {"BTC": "ab"}, "ranges": RANGES, "embargo": 0},
    "settings": {"model": "kronos-tiny", "lookback": 24, "horizon": 4, "volume": True},
}  # fmt: skip
INFO = RECORD | {
    "status": "running", "started": "2024-01-01T00:00:00+00:00", "metrics": {"val/loss": 1.0}, "seconds": 1.0,
    "model": "kronos-tiny", "versions": {"torch": "2"},
}  # fmt: skip
CONFIG = {
    "data": {"name": "btc", "fold": None, "interval": "1h", "lookback": 24, "horizon": 4},
    "model": {"max_context": 64},
    "paths": {"results": "results"},
}
CALIBRATION = {
    "temperature": 1.0, "top_p": 0.9, "widening": [[0.1, 0.1, 0.1, 0.1]], "slope": 1.0, "intercept": 0.0,
    "interval": "1h", "about": {"symbol": "BTC", "cutoffs": 3, "fitted_from": "2024-01-01", "lookback": 24},
}  # fmt: skip
TRIAL = {
    "overrides": ["stage.learning_rate=0.1"], "stage": "tokenizer", "run_dir": "x", "monitor": "val/loss",
    "mode": "min", "status": "finished", "metrics": {"val/loss": 1.0}, "seconds": 2.0,
}  # fmt: skip
SWEEP = {"sweep": {}, "swept": ["stage.learning_rate"], "trials": [TRIAL]}
MEASURED = {
    "verdict": ["x"], "notices": [], "weights": [{"predictor": "a"}], "cutoffs": 3, "horizon": 4, "num_paths": 5,
    "best_baseline": "drift", "figures": {"model": {"crps": 1.0}, "drift": {"crps": None}}, "calibration": None,
}  # fmt: skip
MANIFEST = {
    "symbol": "BTCUSDT", "interval": "1h", "candles": 1, "first": "2024-01-01", "last": "2024-01-02", "gaps": [],
    "covered": [["2024-01-01", "2024-01-02"]], "asked_api": [], "pieces": [], "files": {},
}  # fmt: skip
KEY = {"fingerprints": {"BTC": "ab"}, "ranges": RANGES, "embargo": 0}


def read_sweep(folder):
    record = Record(folder, {}, ["stage.learning_rate"])
    if record.trials:
        table_of(record)
        best(record)


FILES = {
    "training.json": (RECORD, lambda d: (trained_until(read_record(d)), trained_with_volume(d))),
    "run_info.json": (INFO, lambda d: (read_info(d), read_state(d), find_finished(d, KEY, "predictor"))),
    "config.json": (CONFIG, configuration),
    "calibration.json": (CALIBRATION, Calibration.load),
    "sweep.json": (SWEEP, read_sweep),
    "metrics.json": (MEASURED, lambda d: evaluation(str(d), d, CONFIG)),
    "x.manifest.json": (MANIFEST, lambda d: StoredSeries("BTCUSDT", "1h", d / "x.csv").manifest()),
}
VALUES = [None, 7, -1.5, "text", [], {}, [None], 10**400, "\x1b[2J"]
TEXTS = [
    b"", b"{", b"[]", b"null", b"7", b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000, b'{"a": 1e999}',
    b'{"data": "\\ud800"}', b"1" * 5000, b"\x00" * 100, b'{"trials": 1, "sweep": 2}',
]  # fmt: skip


def changed(content):
    """Yield copies of nested content, each with one value replaced or left out."""
    for key in list(content) if isinstance(content, dict) else range(len(content)):
        for value in VALUES:
            copy = json.loads(json.dumps(content))
            copy[key] = value
            yield copy
        if isinstance(content, dict):
            yield {other: value for other, value in content.items() if other != key}
        if isinstance(content[key], dict | list):
            for inner in changed(content[key]):
                copy = json.loads(json.dumps(content))
                copy[key] = inner
                yield copy


@pytest.mark.parametrize("name", FILES)
def test_a_file_with_any_content_is_read_or_refused_in_one_sentence(tmp_path, name):
    content, read = FILES[name]
    for folder in ("best_model", "tokenizer"):
        (tmp_path / "checkpoints" / folder).mkdir(parents=True)
        (tmp_path / "checkpoints" / folder / "model.safetensors").touch()
    cases = [json.dumps(one).encode() for one in changed(content)] + TEXTS
    refused = 0
    for case in cases:
        (tmp_path / name).write_bytes(case)
        refusal = ""
        try:
            read(tmp_path)
        except KronosError as error:
            refusal = str(error)
        refused += bool(refusal)
        assert len(refusal) < 1500
        assert not any(ord(character) < 32 for character in refusal), refusal
    assert len(cases) >= 60
    assert refused >= (len(cases) // 3 if name != "x.manifest.json" else 0)


@pytest.mark.parametrize("name", FILES)
def test_a_pipe_or_a_folder_in_place_of_a_file_is_refused(tmp_path, name):
    if name in ("x.manifest.json",):
        return
    for make in (os.mkfifo, os.mkdir):
        make(tmp_path / name)
        with pytest.raises(KronosError, match="not a regular file"):
            FILES[name][1](tmp_path)
        (os.rmdir if make is os.mkdir else os.unlink)(tmp_path / name)


def test_a_whole_file_is_read_as_it_is(tmp_path):
    (tmp_path / "run_info.json").write_text(json.dumps(INFO | {"status": "finished", "more": {"kept": [1]}}))
    assert read_info(tmp_path) == INFO | {"status": "finished", "more": {"kept": [1]}}
    with pytest.raises(KronosError, match="not finished"):  # there is no best.ckpt
        finished(tmp_path)
