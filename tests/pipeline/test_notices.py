"""What a reader needs to know of an evaluation before any metric."""

from dataclasses import replace

import pandas as pd
import pytest

from kronos_lightning.data.candles import Candles
from kronos_lightning.pipeline.forecasting import RangeForecasts
from kronos_lightning.pipeline.notices import notices
from kronos_lightning.runs.checkpoint_lookup import Sources
from tests.helpers.forecasts import made

PUBLISHED = "NeoQuasar/Kronos-small"


@pytest.fixture
def real(candles):
    return Candles(frame=candles.frame, symbol="BTCUSDT", interval=candles.interval, source="file.csv")


def forecasts(begin):
    result = made([[[101, 102]]], [[102, 104]], [100])
    shift = pd.Timestamp(begin).to_datetime64() - result.stamps[0, 0]
    return replace(result, cutoffs=result.cutoffs + shift, stamps=result.stamps + shift)


def trained(candles, initial="random (kronos-tiny size)", val_end="2024-05-31", fingerprint=None):
    ranges = {
        "train": ["2023-01-01", "2024-01-31"],
        "val": ["2024-02-01", val_end],
        "test": ["2024-07-01", "2024-12-31"],
    }
    data = {"fingerprints": {"X": fingerprint or candles.fingerprint}, "ranges": ranges}
    return Sources(predictor="fine-tuned", tokenizer="kept", info={"initial_weights": initial, "data": data})


def told(candles, forecasts, sources, **compared):
    return notices(candles, RangeForecasts(sources=sources, sampled=forecasts, compared_sources=compared))


def first_word(found):
    return [text.partition(":")[0] for text in found]


def test_an_honest_test_has_no_notice(real):
    assert told(real, forecasts("2024-07-01"), trained(real)) == []


def test_weights_that_descend_from_published_ones_are_contaminated_before_july_2024(real):
    for sources in (trained(real, initial=PUBLISHED), Sources(predictor=PUBLISHED, tokenizer=PUBLISHED, info=None)):
        assert first_word(told(real, forecasts("2024-06-30 23:00"), sources)) == ["CONTAMINATED"]
        assert told(real, forecasts("2024-07-01"), sources) == []


@pytest.mark.parametrize("path", ["random", "random_walk/best_model", "randomised", "not fine-tuned/x"])
def test_no_name_of_a_folder_hides_or_makes_a_notice(real, path):
    started = trained(real, initial=path)
    marked = replace(started, info=started.info | {"random": False})
    loaded = Sources(predictor=path, tokenizer=path, info=None)
    for sources in (started, marked, loaded):
        assert first_word(told(real, forecasts("2024-06-30 23:00"), sources)) == ["CONTAMINATED"]
        assert told(real, forecasts("2024-07-01"), sources) == []


def test_a_run_from_a_run_from_random_weights_is_not_contaminated(real):
    first = trained(real, initial="new").info | {"random": True}
    later = trained(real, initial="runs/first")
    sources = replace(later, info=later.info | {"random": False, "initial_record": first})
    assert told(real, forecasts("2024-06-30 23:00"), sources) == []


def test_a_test_that_begins_inside_the_training_or_validation_range_is_a_leak(real):
    assert first_word(told(real, forecasts("2024-05-31 12:00"), trained(real))) == ["LEAK"]
    assert told(real, forecasts("2024-06-01"), trained(real)) == []


def test_other_candles_than_trained_on_are_named(real):
    assert first_word(told(real, forecasts("2024-07-01"), trained(real, fingerprint="0" * 64))) == ["OTHER DATA"]


def test_untrained_parts_are_named(real):
    sources = Sources(predictor="a", tokenizer="b", info=None, random=True, random_tokenizer=True)
    assert first_word(told(real, forecasts("2024-07-01"), sources)) == ["RANDOM WEIGHTS"] * 2


def test_synthetic_candles_are_named_first(candles):
    assert first_word(told(candles, forecasts("2024-07-01"), trained(candles)))[0] == "SYNTHETIC CANDLES"


def test_a_calibration_on_candles_that_were_trained_on_is_a_leak(real):
    part = RangeForecasts(sources=trained(real), sampled=forecasts("2024-07-01"))
    early, late = (replace(part, validation=forecasts(begin)) for begin in ("2024-01-31 23:00", "2024-02-01"))
    assert "LEAK: calibrated from 2024-01-31 23:00" in notices(real, early)[0]
    assert first_word(notices(real, late)) == ["FEW PATHS"]
    later_tokenizer = replace(late.sources, tokenizer_info=trained(real, val_end="2024-06-30").info)
    assert first_word(notices(real, replace(late, sources=later_tokenizer))) == ["FEW PATHS"]
    tested = replace(late, sampled=forecasts("2024-06-15"), sources=later_tokenizer)
    assert "LEAK: the tokenizer was fine-tuned" in notices(real, tested)[0]


def test_what_a_run_started_from_counts_as_seen(real):
    sources = trained(real)
    started = replace(sources, info=sources.info | {"initial_record": trained(real, val_end="2024-12-31").info})
    assert first_word(told(real, forecasts("2024-07-01"), started)) == ["LEAK"]


def test_a_validation_range_inside_the_pretraining_is_told(real):
    part = RangeForecasts(sources=trained(real, initial=PUBLISHED), sampled=forecasts("2024-07-01"))
    assert "CALIBRATION" in first_word(notices(real, replace(part, validation=forecasts("2024-02-01"))))


def test_published_weights_in_place_of_fine_tuned_ones_are_told(real):
    told_of = f"{PUBLISHED}, not fine-tuned (no run in x)"
    sources = Sources(predictor=told_of, tokenizer=PUBLISHED, info=None, substitute=True)
    found = told(real, forecasts("2024-07-01"), sources)
    assert found == [f"NOT FINE-TUNED: {PUBLISHED}, not fine-tuned (no run in x)."]


def test_what_holds_for_a_compared_checkpoint_alone_is_told_with_its_name(real):
    untuned = Sources(predictor="new", tokenizer="kept", info=None, random=True)
    found = told(real, forecasts("2024-07-01"), trained(real), untuned=untuned)
    assert found == ["untuned: RANDOM WEIGHTS: the predictor was never trained."]
