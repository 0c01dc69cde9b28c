"""The calibration beside a checkpoint, which other commands use."""

import pytest

from kronos_lightning.forecast.calibration import Calibration
from kronos_lightning.pipeline.forecasting import store_calibration
from kronos_lightning.runs.checkpoint_lookup import Sources


@pytest.mark.parametrize(
    ("cutoffs", "paths", "replaced"), [(24, 50, False), (60, 4, False), (90, 8, False), (60, 50, True)]
)
def test_a_smaller_calibration_does_not_replace_a_larger_one_unless_asked(tmp_path, caplog, cutoffs, paths, replaced):
    def store(cutoffs, paths, slope, **options):
        calibration = Calibration(
            temperature=1.0,
            top_p=1.0,
            widening=((0.0,) * 4,),
            slope=slope,
            intercept=0.0,
            interval="1h",
            metadata={"symbol": "BTCUSDT", "cutoffs": cutoffs, "num_paths": paths},
        )
        store_calibration(calibration, Sources(predictor="x", tokenizer="y", info=None, directory=tmp_path), **options)
        return Calibration.load(tmp_path).slope

    store(60, 50, 1.0)
    assert store(cutoffs, paths, 2.0) == (2.0 if replaced else 1.0)
    message = f"({cutoffs} cutoffs, {paths} paths) is stored in the report's folder only"
    assert (message in caplog.text) is not replaced
    assert store(cutoffs, paths, 3.0, overwrite=True) == 3.0


def test_a_calibration_stays_beside_a_checkpoint_that_knows_its_market(tmp_path, caplog):
    caplog.set_level("INFO")

    def kept(symbol):
        calibration = Calibration(
            temperature=1.0,
            top_p=1.0,
            widening=((0.0,) * 4,),
            slope=1.0,
            intercept=0.0,
            interval="1h",
            metadata={"symbol": symbol},
        )
        info = {"data": {"fingerprints": {"BTCUSDT": "a", "ETHUSDT": "b"}}}
        store_calibration(calibration, Sources(predictor="x", tokenizer="y", info=info, directory=tmp_path))
        return Calibration.load(tmp_path)

    assert kept("BTCUSDT").metadata["symbol"] == "BTCUSDT"
    assert kept("DOGEUSDT").metadata["symbol"] == "BTCUSDT"
    assert "this checkpoint was not trained on DOGEUSDT" in caplog.text
    assert kept("ETHUSDT").metadata["symbol"] == "ETHUSDT"
    assert "for ETHUSDT (was for BTCUSDT)" in caplog.text
