"""Rivals: paths from quantiles, what they know, and the libraries with models of no size."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import norm
from scoringrules import crps_ensemble

from kronos_lightning.config.validation import check_evaluation
from kronos_lightning.data import CandleError
from kronos_lightning.data.formats import FEATURES
from kronos_lightning.evaluation import chronos, rival, univariate
from kronos_lightning.evaluation.chronos import Chronos
from kronos_lightning.evaluation.rival import RivalError, quantile_paths, relative_log_close
from kronos_lightning.evaluation.univariate import StatsForecast
from kronos_lightning.pipeline.baselines import build_baselines
from kronos_lightning.settings import parse_interval
from tests.helpers.configuration import composed

LEVELS = [0.1, 0.25, 0.5, 0.75, 0.9]
CUTOFFS = np.arange(310, 590, 40)


class Quantiles:
    """Pipeline whose quantiles are normal, with the deviation of the series' last changes; remembers its inputs."""

    quantiles = LEVELS

    def __init__(self):
        self.seen = []

    def predict_quantiles(self, inputs, prediction_length, quantile_levels):
        self.seen.append([len(one) for one in inputs])
        assert all(one[-1] == 0 for one in inputs)
        spread = np.sqrt(np.arange(1, prediction_length + 1))[:, None] * norm.ppf(quantile_levels)
        found = [torch.tensor(float(one.diff().std()) * spread)[None] for one in inputs]
        return found, None


class Samples:
    """Pipeline that samples random walks from torch's generator."""

    def predict(self, inputs, prediction_length, num_samples):
        (series,) = inputs
        return series.diff().std() * torch.randn(1, num_samples, prediction_length).cumsum(-1)


@pytest.fixture(params=[Quantiles, Samples])
def pipeline(request, monkeypatch):
    made = request.param()
    monkeypatch.setattr(chronos, "load_pipeline", lambda *_: made)
    return made


def paths_of(candles, cutoffs=CUTOFFS, num_paths=20, **changes):
    settings = {"checkpoint": "a/b", "context": 100, "batch_size": 3, "seed": 0} | changes
    return Chronos(**settings).sample_paths(candles, np.asarray(cutoffs), 4, num_paths)


# Paths from quantiles


def drawn(quantiles, levels, count=40_000):
    return quantile_paths(np.asarray(quantiles), np.array(levels), np.random.default_rng(0).normal(size=(count, 4)))


def test_the_paths_of_each_step_have_the_quantiles_they_are_made_from():
    spread = np.array([1.0, 2.0, 0.5, 3.0])
    quantiles = np.array([-4.0, -0.5, 0.0, 1.0, 2.0])[:, None] * spread
    found = np.quantile(drawn(quantiles, LEVELS), LEVELS, axis=0)
    np.testing.assert_allclose(found, quantiles, atol=0.15)


def test_normal_quantiles_give_the_normal_distribution_and_its_tails():
    paths = drawn(np.repeat(norm.ppf(LEVELS)[:, None], 4, axis=1), LEVELS)
    np.testing.assert_allclose(np.quantile(paths[:, 3], [0.005, 0.02, 0.4]), norm.ppf([0.005, 0.02, 0.4]), atol=0.08)


def test_the_ranks_of_two_steps_are_correlated_as_those_of_a_random_walk():
    paths = drawn(np.repeat(norm.ppf(LEVELS)[:, None], 4, axis=1), LEVELS)
    np.testing.assert_allclose(np.corrcoef(paths.T)[0], np.sqrt(1 / np.arange(1, 5)), atol=0.02)


def test_crossing_quantiles_are_sorted():
    crossing = np.array([[0.0], [2.0], [1.0]]).repeat(4, axis=1)
    found, expected = (drawn(one, [0.1, 0.5, 0.9], 50) for one in (crossing, np.sort(crossing, axis=0)))
    np.testing.assert_array_equal(found, expected)


def test_the_fair_score_of_the_paths_is_that_of_their_distribution_unlike_the_score_of_even_quantiles():
    rng, levels = np.random.default_rng(1), (np.arange(20) + 0.5) / 20
    outcome = rng.normal(size=3000)
    quantiles = np.repeat(norm.ppf(levels)[:, None], 1, axis=1)
    paths = np.stack([quantile_paths(quantiles, levels, rng.normal(size=(20, 1)))[:, 0] for _ in outcome])
    truth = np.mean(outcome * (2 * norm.cdf(outcome) - 1) + 2 * norm.pdf(outcome) - 1 / np.sqrt(np.pi))
    assert crps_ensemble(outcome, paths, estimator="fair").mean() == pytest.approx(truth, rel=0.01)
    even = np.broadcast_to(norm.ppf(levels), paths.shape)
    assert crps_ensemble(outcome, even, estimator="fair").mean() < 0.97 * truth


# The seam


def test_paths_change_with_nothing_after_the_cutoff_and_with_no_other_cutoff(pipeline, candles):
    later = candles.frame.copy()
    after = later.index > 450
    later.loc[after, FEATURES] *= np.random.default_rng(0).uniform(0.5, 2, (after.sum(), len(FEATURES)))
    before, changed = paths_of(candles), paths_of(replace(candles, frame=later))
    seen = CUTOFFS <= 450
    np.testing.assert_array_equal(before[seen], changed[seen])
    assert (before[~seen] != changed[~seen]).any(axis=(1, 2)).all()
    np.testing.assert_allclose(before[1::2], paths_of(candles, CUTOFFS[1::2]))
    assert not np.array_equal(before, paths_of(candles, seed=1))


def test_paths_start_from_the_last_close_with_the_volatility_of_the_series(pipeline, candles):
    close = candles.frame["close"].to_numpy()
    moves = np.log(paths_of(candles, num_paths=3000) / close[CUTOFFS, None, None])
    expected = [np.diff(np.log(close[row - 100 : row + 1])).std() for row in CUTOFFS]
    np.testing.assert_allclose(moves[..., 0].std(axis=1), expected, rtol=0.06)
    np.testing.assert_allclose(moves[..., 3].std(axis=1), 2 * np.array(expected), rtol=0.06)


def test_cutoffs_are_forecast_in_batches_from_at_most_the_context(monkeypatch, candles):
    made = Quantiles()
    monkeypatch.setattr(chronos, "load_pipeline", lambda *_: made)
    paths_of(candles, [30, *CUTOFFS])
    assert made.seen == [[31, 101, 101], [101, 101, 101], [101, 101]]


def test_a_jump_over_a_gap_is_no_move(pipeline, candles):
    after = np.arange(len(candles)) >= 400
    frame = candles.frame.assign(segment=after.astype(np.int64))
    frame.loc[after, FEATURES] *= 3
    jumped = paths_of(replace(candles, frame=frame), [420], num_paths=500)
    spread = np.log(jumped / frame["close"].iloc[420]).std()
    assert spread < 0.1  # a jump to three times the price would make it 0.2 and more


def test_too_short_a_history_is_an_error(pipeline, candles):
    with pytest.raises(CandleError, match="chronos_b needs 10 changes"):
        paths_of(candles, [5, 300])


def test_an_absurd_forecast_stays_a_finite_number(monkeypatch, candles):
    made = SimpleNamespace(predict=lambda *_, **options: torch.full((1, options["num_samples"], 4), 1e6))
    monkeypatch.setattr(chronos, "load_pipeline", lambda *_: made)
    assert np.isfinite(paths_of(candles)).all()


def test_the_series_ends_with_zero_at_the_cutoff():
    np.testing.assert_allclose(relative_log_close(np.array([0.1, -0.3])), [0.2, 0.3, 0.0])


# The libraries


@pytest.mark.parametrize(("library", "needed"), [("chronos", "chronos"), ("statsforecast", "statsforecast")])
def test_without_its_library_a_rival_says_in_one_sentence_what_to_install(library, needed, monkeypatch, candles):
    monkeypatch.setitem(sys.modules, library, None)
    chronos.load_pipeline.cache_clear()
    one = StatsForecast(model="AutoETS", context=50, seed=0) if library == "statsforecast" else None
    one = one or Chronos(checkpoint="a/b", context=50, seed=0, device="cpu")
    with pytest.raises(RivalError, match=rf"pip install 'kronos-lightning\[{needed}\]'$"):
        one.sample_paths(candles, CUTOFFS, 2, 3)


def test_a_checkpoint_that_does_not_exist_is_an_error_of_one_line(tmp_path, candles, monkeypatch):
    pytest.importorskip("chronos")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(RivalError, match="set the folder of a model") as caught:
        paths_of(candles, checkpoint=str(tmp_path / "nothing"), device="cpu")
    assert "\n" not in str(caught.value)


TINY = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2, "feed_forward_proj": "relu"}
PATCHES = {"context_length": 64, "input_patch_size": 8, "input_patch_stride": 8, "use_reg_token": True}
DECILES = [round(0.1 * k, 1) for k in range(1, 10)]


def save_chronos_2(folder):
    from chronos.chronos2 import Chronos2Model
    from chronos.chronos2.config import Chronos2CoreConfig

    options = PATCHES | {"output_patch_size": 8, "quantiles": DECILES, "max_output_patches": 4}
    config = Chronos2CoreConfig(**TINY, vocab_size=2, chronos_config=options, architectures=["Chronos2Model"])
    config.chronos_pipeline_class = "Chronos2Pipeline"
    Chronos2Model(config).save_pretrained(folder)


def t5_config(options, **more):
    from transformers import T5Config

    config = T5Config(**TINY, is_encoder_decoder=True, decoder_start_token_id=0, pad_token_id=0, eos_token_id=1, **more)
    config.chronos_config = options
    return config


def save_bolt(folder):
    from chronos.chronos_bolt import ChronosBoltModelForForecasting

    config = t5_config(PATCHES | {"prediction_length": 8, "quantiles": DECILES}, vocab_size=2)
    config.architectures, config.chronos_pipeline_class = ["ChronosBoltModelForForecasting"], "ChronosBoltPipeline"
    ChronosBoltModelForForecasting(config).save_pretrained(folder)


def save_t5(folder):
    from transformers import T5ForConditionalGeneration

    bins = {"tokenizer_class": "MeanScaleUniformBins", "tokenizer_kwargs": {"low_limit": -15.0, "high_limit": 15.0}}
    tokens = {"n_tokens": 64, "n_special_tokens": 2, "pad_token_id": 0, "eos_token_id": 1, "use_eos_token": True}
    sampling = {"num_samples": 5, "temperature": 1.0, "top_k": 50, "top_p": 1.0}
    lengths = {"model_type": "seq2seq", "context_length": 64, "prediction_length": 8}
    config = t5_config(bins | tokens | sampling | lengths, vocab_size=64)
    config.chronos_pipeline_class = "ChronosPipeline"
    T5ForConditionalGeneration(config).save_pretrained(folder)


@pytest.mark.parametrize("save", [save_chronos_2, save_bolt, save_t5])
def test_a_folder_with_a_random_model_of_each_kind_gives_paths(save, tmp_path, candles, monkeypatch):
    pytest.importorskip("chronos")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    torch.manual_seed(0)
    save(tmp_path / "tiny")
    options = {"checkpoint": str(tmp_path / "tiny"), "device": "cpu"}
    paths = paths_of(candles, **options)
    assert paths.shape == (len(CUTOFFS), 20, 4)
    assert np.isfinite(paths).all()
    assert np.ptp(paths, axis=1).min() > 0
    np.testing.assert_allclose(paths[::3], paths_of(candles, CUTOFFS[::3], **options), rtol=1e-4)


@pytest.mark.parametrize("model", ["AutoARIMA", "AutoETS", "AutoTheta"])
def test_a_classical_model_of_a_random_walk_has_its_volatility(model, candles):
    pytest.importorskip("statsforecast")
    close, cutoffs = candles.frame["close"].to_numpy(), np.array([400, 500])
    one = StatsForecast(model=model, context=150, seed=0)
    moves = np.log(one.sample_paths(candles, cutoffs, 4, 2000) / close[cutoffs, None, None])
    expected = [np.diff(np.log(close[row - 150 : row + 1])).std() for row in cutoffs]
    np.testing.assert_allclose(moves[..., 0].std(axis=1), expected, rtol=0.25)
    np.testing.assert_allclose(moves[..., 3].std(axis=1), 2 * np.array(expected), rtol=0.35)


def test_a_fit_that_fails_gives_a_random_walk_and_a_warning(monkeypatch, candles, caplog):
    def fail(**_):
        raise RuntimeError("no optimum")

    monkeypatch.setattr(univariate, "build_model", lambda *_: SimpleNamespace(forecast=fail))
    one = StatsForecast(model="AutoETS", context=100, seed=0)
    moves = np.log(one.sample_paths(candles, CUTOFFS[:1], 4, 4000) / candles.frame["close"].iloc[CUTOFFS[0]])
    assert moves[0, :, 3].std() == pytest.approx(2 * moves[0, :, 0].std(), rel=0.06)
    assert "autoets: a fit failed" in caplog.text


# The configuration


def test_the_configuration_names_every_rival():
    names = ["chronos", "autoarima", "autoets", "autotheta"]
    chosen = f"evaluation.baselines=[{','.join(names)}]"
    settings = check_evaluation(composed("evaluate", "data=sample", chosen, "baselines.chronos.checkpoint=my/tiny"))
    found = build_baselines(settings, parse_interval("1h"))
    assert [one.name for one in found.values()] == ["chronos_tiny", "autoarima", "autoets", "autotheta"]
    assert all(isinstance(one, rival.Rival) for one in found.values())
