"""The notices that a reader needs before any figure."""

import pandas as pd
import pytest

from kronos_lightning.build import Sources
from kronos_lightning.data.candles import Candles
from kronos_lightning.measure import notices
from tests.evaluation.test_evaluation import made

PUBLISHED = "NeoQuasar/Kronos-small"


@pytest.fixture
def real(candles):
    return Candles(candles.frame, "BTCUSDT", candles.interval, "file.csv")


def forecasts(begin):
    result = made([[[101, 102]]], [[102, 104]], [100])
    shift = pd.Timestamp(begin).to_datetime64() - result.stamps[0, 0]
    return type(result)(result.cutoffs + shift, result.stamps + shift, result.last_close, result.paths, result.actual)


def trained(candles, initial="random (kronos-tiny size)", val_end="2024-05-31", fingerprint=None):
    ranges = {
        "train": ["2023-01-01", "2024-01-31"],
        "val": ["2024-02-01", val_end],
        "test": ["2024-07-01", "2024-12-31"],
    }
    data = {"fingerprints": {"X": fingerprint or candles.fingerprint}, "ranges": ranges}
    return Sources("fine-tuned", "kept", {"initial_weights": initial, "data": data})


def first_words(found):
    return [text.partition(":")[0] for text in found]


def test_an_honest_test_has_no_notice(real):
    assert notices(real, forecasts("2024-07-01"), trained(real)) == []


def test_weights_that_descend_from_published_ones_are_contaminated_before_july_2024(real):
    for sources in (trained(real, initial=PUBLISHED), Sources(PUBLISHED, PUBLISHED, None)):
        assert first_words(notices(real, forecasts("2024-06-30 23:00"), sources)) == ["CONTAMINATED"]
        assert notices(real, forecasts("2024-07-01"), sources) == []


def test_a_test_that_begins_inside_the_training_or_validation_range_is_a_leak(real):
    assert first_words(notices(real, forecasts("2024-05-31 12:00"), trained(real))) == ["LEAK"]
    assert notices(real, forecasts("2024-06-01"), trained(real)) == []


def test_other_candles_than_trained_on_are_named(real):
    assert first_words(notices(real, forecasts("2024-07-01"), trained(real, fingerprint="0" * 64))) == ["OTHER DATA"]


def test_untrained_parts_are_named(real):
    sources = Sources("random (kronos-tiny size)", "random (kronos-tiny size)", None)
    assert first_words(notices(real, forecasts("2024-07-01"), sources)) == ["RANDOM WEIGHTS"] * 2


def test_synthetic_candles_are_named_first(candles):
    assert first_words(notices(candles, forecasts("2024-07-01"), trained(candles)))[0] == "SYNTHETIC CANDLES"
