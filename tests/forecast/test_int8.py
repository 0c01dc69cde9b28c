"""Decoding of a single path with weights of 8 bits."""

import pytest
import torch

from kronos_lightning import Forecaster
from kronos_lightning.config.validation import check_forecasting
from kronos_lightning.forecast.device import DeviceError
from kronos_lightning.forecast.int8 import Int8Weight, check_int8
from kronos_lightning.forecast.products import Product
from kronos_lightning.runs.networks import Inputs, build_forecaster
from tests.helpers.configuration import composed


@pytest.fixture
def forecasts(golden, golden_tokenizer, golden_predictor):
    """Forecast of some series and paths in a precision, from the same random numbers."""
    x, stamp = golden["x"][:, :48], golden["stamp"]

    def sample(dtype, series, paths, seed=0):
        forecaster = Forecaster(golden_tokenizer, golden_predictor, max_context=512, dtype=dtype)
        given = (part[:1].expand(series, -1, -1) for part in (x, stamp[:, :48], stamp[:, 48:60]))
        return forecaster.sample_normalised(*given, paths, torch.Generator().manual_seed(seed))

    return sample


@pytest.mark.parametrize("width", [8, 32, 100])  # the kernel itself reads whole blocks of 32
def test_a_weight_of_8_bits_errs_by_its_rounding_alone(width):
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(width, 96, generator=generator), torch.randn(96, generator=generator)
    weight[:, 5] *= 1000  # a common scale of all outputs would lose the others
    weight[:, 7] = 0
    row = torch.randn(1, width, generator=generator)
    exact, result = row @ weight + bias, Int8Weight(weight, bias)(row)
    half_a_step = weight.abs().amax(dim=0) / 127 / 2 * row.abs().sum()
    in_bfloat16 = 2**-7 * (row.abs() @ weight.abs())
    assert ((result - exact).abs() <= half_a_step + in_bfloat16).all()
    assert result[0, 7] == bias[7]


@pytest.mark.parametrize("bias", [None, torch.arange(6.0)])
def test_one_row_is_multiplied_by_8_bits_and_several_rows_are_as_before(bias):
    weight, rows = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)), torch.tensor([[1.0, -2.0, 3.0, 0.5]])
    plain, product = Product(weight, bias, parts=2), Product(weight, bias, parts=2)
    product.quantise()
    several = rows.repeat(2, 1)
    assert torch.equal(product(several), plain(several))
    assert 0 < (product(rows) - plain(rows)).abs().max() < 0.2
    assert torch.equal(product.split(rows, torch.empty(2, 1, 3)), product.split(rows))

    target = torch.ones(1, 6)
    product.add_to(target, rows)
    torch.testing.assert_close(target, 1 + product(rows))


def test_a_single_path_of_8_bits_stays_near_that_of_float32(forecasts):
    pairs = [[forecasts(dtype, 1, 1, seed) for dtype in (torch.float32, torch.int8)] for seed in range(20)]
    same = [torch.allclose(exact, rounded, atol=1e-4) for exact, rounded in pairs]
    assert sum(same) > 6  # paths part where a draw falls between the two roundings
    assert not all(torch.equal(exact, rounded) for exact, rounded in pairs)
    exact, rounded = (torch.stack(parts).mean(dim=0) for parts in zip(*pairs, strict=True))
    torch.testing.assert_close(rounded, exact, atol=0.5, rtol=0)


@pytest.mark.parametrize(("series", "paths"), [(1, 3), (2, 1)])
def test_several_paths_or_series_are_those_of_float32(forecasts, series, paths):
    assert torch.equal(forecasts(torch.int8, series, paths), forecasts(torch.float32, series, paths))


def test_memory_is_planned_for_a_cache_in_float32(tiny_tokenizer, tiny_predictor):
    fitting = [
        Forecaster(tiny_tokenizer, tiny_predictor, dtype=dtype)._fitting(400, 100, 1)
        for dtype in (torch.int8, torch.float32)
    ]
    assert fitting[0] == fitting[1]


def test_other_devices_are_refused():
    check_int8(torch.device("cpu"))
    with pytest.raises(DeviceError, match=r"forecast.precision=int8: only on a CPU, not on cuda; use bfloat16"):
        check_int8(torch.device("cuda"))


def test_the_setting_reaches_the_forecaster(tiny_tokenizer, tiny_predictor):
    settings = check_forecasting(composed("forecast", "forecast.precision=int8", "candles=some.csv"))
    assert build_forecaster(settings, tiny_tokenizer, tiny_predictor, Inputs(clip=5.0)).dtype == torch.int8
