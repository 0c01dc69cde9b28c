"""Leaks planted into what forecasts are made of: representation, anchor, calibrated baselines, combination."""

from dataclasses import replace

import pytest

from kronos_lightning.cli.figures import in_this_process
from kronos_lightning.data.formats import CLOSE
from tests.helpers.leaks import CHEAP, certified, checkpoints, leaking, plant

CUTOFFS = "kronos_lightning.evaluation.rolling.Cutoffs.__init__"
RETURNS = ["data.representation=returns"]


@pytest.fixture
def file(monkeypatch):
    """All candles of the evaluation that runs, under "values": what no forecaster may know."""
    known = {}

    def remembering(real):
        def init(self, *args, **kwargs):
            real(self, *args, **kwargs)
            known["values"] = self.values

        return init

    plant(monkeypatch, CUTOFFS, remembering)
    return known


def evaluated(folder, *overrides, **options):
    return certified(in_this_process, [*checkpoints(folder, **options), *CHEAP, *overrides])


@pytest.mark.parametrize("leak", [False, True])
def test_returns_in_units_of_the_files_volatility_are_caught(leak, file, tmp_path, monkeypatch):
    def of_the_file(_):
        def volatility(self, moves, lookback, stamp):
            returns = file["values"][:, CLOSE].log().diff()
            return returns.square().mean().sqrt().expand(len(moves), 1)

        return volatility

    if leak:
        plant(monkeypatch, "kronos_lightning.data.representation.Returns._volatility", of_the_file)
    found = evaluated(tmp_path, *RETURNS, representation={"name": "returns"})
    assert leaking(found) >= {"sampled", "validation"} if leak else not leaking(found)


@pytest.mark.parametrize("leak", [False, True])
def test_an_anchor_at_the_mean_of_all_candles_is_caught(leak, file, tmp_path, monkeypatch):
    def decode_last(real):
        return lambda *args: real(*args) + file["values"][:, CLOSE].mean() / 1e5

    if leak:
        plant(monkeypatch, "kronos_lightning.forecast.forecaster.decode_last", decode_last)
    found = evaluated(tmp_path, "forecast.anchor=true")
    assert leaking(found) >= {"sampled", "validation"} if leak else not leaking(found)


@pytest.mark.parametrize("leak", [False, True])
def test_baselines_calibrated_and_weighted_on_the_test_are_caught(leak, tmp_path, monkeypatch):
    def on_the_test(real):
        return lambda settings, candles, whole: real(settings, candles, replace(whole, validation=whole.forecasts))

    if leak:
        plant(monkeypatch, "kronos_lightning.pipeline.evaluating.compete", on_the_test)
    found = evaluated(tmp_path, "evaluation.combine=[drift]")
    expected = {"baseline calibrated drift", "weights of the combination", "combination"}
    assert expected <= set(found)
    assert leaking(found) >= expected if leak else not leaking(found)


@pytest.mark.parametrize("leak", [False, True])
def test_a_spread_shrunk_to_the_volatility_of_the_whole_file_is_caught(leak, file, tmp_path, monkeypatch):
    def of_the_file(real):
        def deviations(self, *args):
            return real(self, *args) * float(file["values"][:, CLOSE].log().diff().std())

        return deviations

    if leak:
        plant(monkeypatch, "kronos_lightning.evaluation.rolling.Cutoffs.deviations", of_the_file)
    found = evaluated(tmp_path)
    assert leaking(found) >= {"sampled", "validation"} if leak else not leaking(found)
