"""From an exchange to a report: several markets, downloaded by training itself."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from tests.helpers.commands import QUICK, QUICK_EVALUATE, QUICK_TRAIN, command
from tests.helpers.exchange import Exchange, made_up_rows


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Both stages on two markets, on a machine that has no candles yet."""
    cwd = tmp_path_factory.mktemp("crypto")
    rows = {(s, "1h"): made_up_rows("2023-01-01", "1h", 900, seed=i) for i, s in enumerate(("BTCUSDT", "ETHUSDT"))}
    exchange = Exchange(rows, pd.Timestamp("2023-03-01", tz="UTC"))
    exchange.publish("BTCUSDT", "1h", "monthly", "2023-01")
    hosts = [f"data.binance.archive_url={exchange.url}", f"data.binance.rest_url={exchange.url}"]
    markets = ["data=crypto_1h", "data.dataset_begin_time=2023-01-01", "data.dataset_end_time=2023-02-07"]
    options = [*markets, *(o for o in QUICK if not o.startswith(("data=", "data.synthetic")))]
    result = command(
        "train.py", "-m", "stage=tokenizer,predictor", *options, *QUICK_TRAIN[len(QUICK) :], *hosts,
        "augmentation=strong", "data.symbol_weights=[1.0,2.0]", cwd=cwd,
    )  # fmt: skip
    exchange.close()
    return cwd, options, result


def test_training_downloads_what_it_needs_and_says_so(trained):
    cwd, _, result = trained
    assert "downloading ETHUSDT 1h from Binance" in result.stderr
    for symbol in ("BTCUSDT", "ETHUSDT"):
        assert len(pd.read_csv(cwd / "csv" / f"{symbol}_1h.csv")) == 900
    assert result.stderr.count("downloading") == 2  # the second stage finds the files


def test_fingerprints_of_all_markets_stand_in_run_info_and_checkpoints(trained):
    cwd, *_ = trained
    run_dir = cwd / "outputs" / "models" / "finetune_predictor_crypto_1h"
    info = json.loads((run_dir / "run_info.json").read_text())
    prints = info["data"]["fingerprints"]
    assert set(prints) == {"BTCUSDT", "ETHUSDT"}
    record = json.loads((run_dir / "checkpoints" / "best_model" / "training.json").read_text())
    assert record["data"]["fingerprints"] == prints
    checkpoint = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["CandleDataModule"]["fingerprints"] == prints
    shares = info["data"]["windows"]["train"]["by_symbol"]
    assert shares["BTCUSDT"] == shares["ETHUSDT"]
    assert np.isfinite(info["metrics"]["val/loss"])


def test_each_market_is_evaluated_by_itself(trained):
    cwd, options, _ = trained
    extra = [*options, *QUICK_EVALUATE[len(QUICK) :]]
    command("evaluate.py", "-m", *extra, "data.symbol=BTCUSDT,ETHUSDT", cwd=cwd)
    reports = [cwd / "outputs" / "backtest_results" / f"crypto_1h-symbol={s}" for s in ("BTCUSDT", "ETHUSDT")]
    figures = [json.loads((report / "metrics.json").read_text()) for report in reports]
    assert figures[0]["fingerprint"] != figures[1]["fingerprint"]
    assert all("OTHER DATA" not in (report / "report.html").read_text() for report in reports)


def test_a_checkpoint_taken_elsewhere_still_tells_that_it_was_trained_on_other_data(trained, tmp_path):
    cwd, *_ = trained
    checkpoints = cwd / "outputs" / "models" / "finetune_predictor_crypto_1h" / "checkpoints"
    for name in ("best_model", "tokenizer"):
        (checkpoints / name).rename(tmp_path / name)
    result = command("evaluate.py", *QUICK_EVALUATE, f"predictor={tmp_path / 'best_model'}", cwd=tmp_path)
    for name in ("best_model", "tokenizer"):
        (tmp_path / name).rename(checkpoints / name)
    assert "OTHER DATA" in " ".join(result.stdout.split())
