"""Markets of a data set: fetched, examined, defects treated as asked, kept apart; augmentation of training windows."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from kronos_lightning.data import CandleError
from kronos_lightning.data.formats import FEATURES, PRICES
from kronos_lightning.data.sources.binance import DownloadError
from kronos_lightning.data.sources.synthetic import synthetic_candles
from tests.helpers.data import data_module
from tests.helpers.exchange import Exchange, made_up_rows
from tests.helpers.levels import normalise

STRONG = {"price_noise": 0.05, "time_warp": 0.3, "magnitude": 0.3, "reversal": 0.5}


@pytest.fixture
def make(tmp_path):
    base = {
        "processed_dir": str(tmp_path / "processed"),
        "csv_dir": str(tmp_path),
        "synthetic": None,
        "source": "binance",
    }
    return lambda **changes: data_module(**base | changes)


def write(path, seed=3, start_price=100.0, change=None):
    """600 hours as a CSV; `change` may plant defects into the frame (its first row is line 2)."""
    frame = synthetic_candles(600, "1h", "2023-01-01", seed, start_price, 0.8).frame[["timestamps", *FEATURES]]
    frame["timestamps"] = frame["timestamps"].dt.strftime("%Y-%m-%d %H:%M:%S")
    frame = change(frame) if change else frame
    frame.to_csv(path, index=False)
    return str(path)


@pytest.fixture
def exchange():
    rows = made_up_rows("2023-01-01", "1h", 600)
    served = Exchange({("X", "1h"): rows, ("Y", "1h"): rows}, pd.Timestamp("2023-02-01", tz="UTC"))
    yield served
    served.close()


def binance(exchange, **changes):
    return exchange.endpoints(source="rest", retries=0, **changes).model_dump()


# --- fetched ----------------------------------------------------------------------------------------------------


def test_missing_candles_are_downloaded_once(make, exchange, tmp_path):
    make(binance=binance(exchange)).prepare_data()
    assert len(pd.read_csv(tmp_path / "X_1h.csv")) == 600
    exchange.asked[:] = []
    again = make(binance=binance(exchange), lookback=21)
    again.prepare_data()
    assert exchange.asked == []
    assert again.manifest()["candles"] == 600


def test_no_more_is_downloaded_than_the_data_set_begins_and_ends_with(make, exchange, tmp_path):
    make(
        binance=binance(exchange), dataset_begin_time="2023-01-02", dataset_end_time="2023-01-21",
        test_time_range=["2023-01-17", "2023-01-21"],
    ).prepare_data()  # fmt: skip
    stamps = pd.read_csv(tmp_path / "X_1h.csv")["timestamps"]
    assert (stamps.iloc[0], stamps.iloc[-1]) == ("2023-01-02 00:00:00", "2023-01-21 23:00:00")


def test_a_file_of_ones_own_is_never_downloaded(make, exchange, tmp_path):
    for changes in ({"csv_path": str(tmp_path / "mine.csv"), "binance": binance(exchange)}, {"binance": None}):
        with pytest.raises(CandleError, match=r"no such file; data\.csv_path=FILE names your candles"):
            make(**changes).prepare_data()
    assert exchange.asked == []


def test_a_failed_download_names_the_way_out(make, exchange):
    exchange.fault = lambda path, before: 451
    with pytest.raises(DownloadError, match=r"not available in your region.*data\.csv_path=FILE"):
        make(binance=binance(exchange)).prepare_data()


def test_what_a_broken_download_could_get_is_trained_on_with_a_warning(make, exchange, caplog):
    exchange.publish("X", "1h", "monthly", "2023-01")
    exchange.series["X", "1h"] += made_up_rows("2023-02-01", "1h", 10)
    exchange.now = pd.Timestamp("2023-02-01 05:00", tz="UTC")
    exchange.fault = lambda path, before: 451 if "/api/" in path else None
    settings = binance(exchange) | {"source": "auto"}
    make(binance=settings, dataset_begin_time="2023-01-01").prepare_data()
    assert "not available in your region" in caplog.text


# --- examined ---------------------------------------------------------------------------------------------------


def spoil(frame):
    """Rows of another level: an error for the doctor, which the reader alone would not notice."""
    frame.loc[300:309, PRICES] *= 1.5
    return frame


def test_a_defect_stops_the_preparation_and_names_the_doctor(make, tmp_path):
    path = write(tmp_path / "c.csv", change=spoil)
    with pytest.raises(CandleError, match=r"do not belong there.*data.doctor .*c.csv .*on_defect=drop") as error:
        make(csv_path=path).prepare_data()
    assert "2023-01-13 12:00" in str(error.value)


def test_dropped_candles_are_listed_and_leave_a_gap(make, tmp_path, caplog):
    path = write(tmp_path / "c.csv", change=spoil)
    module = make(csv_path=path, on_defect="drop")
    module.prepare_data()
    dropped = module.manifest()["markets"]["X"]["dropped"]
    assert [place["line"] for place in dropped] == list(range(302, 312))
    assert {place["check"] for place in dropped} == {"pasted rows"}
    assert "10 candle(s) dropped" in caplog.text
    (candles,) = module.read()
    assert len(candles) == 590
    assert len(candles.gaps) == 1
    assert candles.fingerprint == module.fingerprints["X"]
    again = make(csv_path=path, on_defect="drop")
    again.prepare_data()
    assert len(again.read()[0]) == 590


def test_ignored_defects_are_trained_on_and_said(make, tmp_path, caplog):
    module = make(csv_path=write(tmp_path / "c.csv", change=spoil), on_defect="ignore")
    module.prepare_data()
    assert len(module.read()[0]) == 600
    assert "training on defective candles" in caplog.text
    assert module.manifest()["markets"]["X"]["findings"][0]["check"] == "pasted rows"


@pytest.mark.parametrize("on_defect", ["error", "ignore", "drop"])
def test_candles_that_are_none_can_only_be_dropped(make, tmp_path, on_defect):
    def no_number(frame):
        frame.loc[300, "close"] = np.nan
        return frame

    module = make(csv_path=write(tmp_path / "c.csv", change=no_number), on_defect=on_defect)
    if on_defect == "drop":
        module.prepare_data()
        assert len(module.read()[0]) == 599
    else:
        with pytest.raises(CandleError, match="line 302"):
            module.prepare_data()


def test_defects_outside_the_dates_of_the_data_set_do_not_stop(make, tmp_path):
    module = make(
        csv_path=write(tmp_path / "c.csv", change=spoil), dataset_end_time="2023-01-13 11:00",
        train_time_range=["2023-01-01", "2023-01-08"], val_time_range=["2023-01-09", "2023-01-10"],
        test_time_range=["2023-01-11", "2023-01-13"],
    )  # fmt: skip
    module.prepare_data()
    assert module.manifest()["markets"]["X"]["findings"] == []


def test_warnings_are_logged_and_kept(make, tmp_path, caplog):
    path = write(tmp_path / "c.csv", change=lambda frame: frame.drop(index=range(200, 204)))
    module = make(csv_path=path)
    module.prepare_data()
    assert "candles missing: 4 from 2023-01-09 08:00" in caplog.text
    assert [f["check"] for f in module.manifest()["markets"]["X"]["findings"]] == ["gap"]


# --- several ----------------------------------------------------------------------------------------------------


def two(make, tmp_path, **changes):
    write(tmp_path / "A_1h.csv", seed=3, start_price=100.0)
    write(tmp_path / "B_1h.csv", seed=4, start_price=9000.0)
    module = make(symbol=["A", "B"], **changes)
    module.prepare_data()
    module.setup()
    return module


def test_no_window_holds_candles_of_two_markets_and_each_is_normalised_by_itself(make, tmp_path):
    both = two(make, tmp_path)
    singles = []
    for symbol in ("A", "B"):
        single = make(symbol=symbol, name=symbol)
        single.prepare_data()
        single.setup()
        singles.append(single.windows["train"])
    windows = both.windows["train"]
    assert len(windows) == len(singles[0]) + len(singles[1])
    first, second, batch = (w.__getitems__(range(len(w))) for w in (*singles, windows))
    for one, other, part in zip(*((b.x, b.stamp, *b.scale) for b in (first, second, batch)), strict=True):
        assert torch.equal(part, torch.cat([one, other]))
    close = batch.scale.mean[:, 0, 3]
    assert not ((close > 300) & (close < 3000)).any()


def test_the_manifest_tells_the_markets_apart(make, tmp_path):
    module = two(make, tmp_path)
    manifest = module.manifest()
    assert manifest["candles"] == 1200
    assert set(module.fingerprints) == {"A", "B"}
    assert len(set(module.fingerprints.values())) == 2
    train = manifest["windows"]["train"]
    assert sum(train["by_symbol"].values()) == train["windows"] == len(module.windows["train"])


def test_weights_decide_the_share_of_a_market(make, tmp_path):
    module = two(make, tmp_path, symbol_weights=[1.0, 3.0], samples_per_epoch=160)
    means = torch.cat([batch.scale.mean[:, 0, 3] for batch in module.train_dataloader()])
    assert (means > 1000).sum() == 120
    assert len(means) == 160


def test_a_market_without_a_window_is_named_and_cannot_have_a_weight(make, tmp_path, caplog):
    write(tmp_path / "A_1h.csv")
    write(tmp_path / "B_1h.csv", seed=4, change=lambda frame: frame.iloc[400:])
    module = make(symbol=["A", "B"], symbol_weights=[1.0, 1.0])
    module.prepare_data()
    assert "B: no train window" in caplog.text
    module.setup()
    with pytest.raises(CandleError, match="symbol_weights"):
        module.train_dataloader()


# --- augmented --------------------------------------------------------------------------------------------------


def batches(module, epoch=0):
    loader = module.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return [batch.x for batch in loader]


def prepared(make, tmp_path, **changes):
    module = make(csv_path=write(tmp_path / "c.csv"), **changes)
    module.prepare_data()
    module.setup()
    return module


def test_only_training_windows_are_augmented(make, tmp_path):
    plain, changed = prepared(make, tmp_path), prepared(make, tmp_path, augmentation=STRONG)
    assert not torch.equal(batches(plain)[0], batches(changed)[0])
    for name in ("val", "test"):
        everything = range(len(plain.windows[name]))
        a, b = (m.windows[name].__getitems__(everything).x for m in (plain, changed))
        assert torch.equal(a, b)
    without = prepared(make, tmp_path, augmentation=dict.fromkeys(STRONG, 0.0))
    assert torch.equal(torch.cat(batches(without)), torch.cat(batches(plain)))


def test_augmentation_changes_with_the_epoch_and_the_seed_and_not_with_workers_or_batches(make, tmp_path):
    reference = prepared(make, tmp_path, augmentation=STRONG)
    first = torch.cat(batches(reference, epoch=1))
    with_workers = prepared(make, tmp_path, augmentation=STRONG, num_workers=2)
    assert torch.equal(torch.cat(batches(with_workers, epoch=1)), first)
    windows = reference.windows["train"]
    one, two = (windows.__getitems__([5 + epoch * len(windows)]).x for epoch in (0, 1))
    assert not torch.equal(one, two)
    assert torch.equal(one[0], windows.__getitems__([7, 5, 9]).x[1])
    other_seed = prepared(make, tmp_path, augmentation=STRONG, seed=1).windows["train"]
    assert not torch.equal(other_seed.__getitems__([5]).x, one)


def test_windows_are_augmented_before_they_are_normalised(make, tmp_path):
    module = prepared(make, tmp_path, augmentation=STRONG)
    windows = module.windows["train"]
    raw = windows._windows.index_select(0, windows.starts[:4])
    expected, mean, _ = normalise(module.augmentation(raw, [0] * 4, range(4)), 20, 5.0)
    batch = windows.__getitems__(range(4))
    assert torch.equal(batch.x, expected)
    assert torch.equal(batch.scale.mean, mean)


# --- checkpoints ------------------------------------------------------------------------------------------------


def test_a_checkpoint_of_other_candles_is_refused(make, tmp_path):
    module = prepared(make, tmp_path)
    state = json.loads(json.dumps(module.state_dict()))
    module.load_state_dict(state)
    write(tmp_path / "c.csv", seed=8)
    other = make(csv_path=str(tmp_path / "c.csv"))
    other.prepare_data()
    with pytest.raises(CandleError, match="trained on other candles"):
        other.load_state_dict(state)


def test_a_file_is_parsed_and_validated_once_however_many_data_modules_ask(make, tmp_path, monkeypatch):
    calls = []
    for name in ("formats.reading._raw", "symbol_candles.validate"):
        module, _, function = f"kronos_lightning.data.{name}".rpartition(".")
        original = getattr(sys.modules[module], function)
        monkeypatch.setattr(
            f"{module}.{function}",
            lambda *a, original=original, name=name, **k: calls.append(name) or original(*a, **k),
        )
    path = write(tmp_path / "mine.csv")
    for lookback in (20, 21):
        module = make(csv_path=path, lookback=lookback)
        module.prepare_data()
        module.read()
    assert calls == ["formats.reading._raw", "symbol_candles.validate"]
    write(tmp_path / "mine.csv", seed=4)  # the same file, other candles
    module = make(csv_path=path)
    module.prepare_data()
    assert calls == ["formats.reading._raw", "symbol_candles.validate"] * 2


def test_a_file_is_not_parsed_where_the_processed_data_is_up_to_date(make, tmp_path, monkeypatch):
    path = write(tmp_path / "mine.csv", seed=9)
    make(csv_path=path).prepare_data()
    monkeypatch.setattr(
        "kronos_lightning.data.formats.reading._read_raw", lambda *_: pytest.fail("the file was parsed")
    )
    module = make(csv_path=path)
    module.prepare_data()
    module.setup("fit")
    assert len(module.windows["train"])
