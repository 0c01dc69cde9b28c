"""The floor's arithmetic, against numbers computed by hand and against the operations that torch counts."""

import math

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from kronos_lightning import Forecaster
from tests.helpers.floor import (
    COPIED,
    Cost,
    Floor,
    Rates,
    Shape,
    copy_rate,
    floor,
    forecast_floor,
    predictor_cost,
    tokenizer_cost,
)

SHAPE = Shape(series=2, paths=3, known=5, horizon=2)
# Tiny networks: D = 16, feed-forward 24, V1 = 16, V2 = 8; the predictor has 2 blocks, the tokenizer 1 + 1.
BLOCK = 4 * 16 * 16 + 3 * 16 * 24  # 2,176 weights


def test_the_predictors_products_and_bytes_are_those_computed_by_hand(tiny_predictor):
    known, own = 2 * 5, 2 * 3 * 1  # candles passed; the second forecast candle is not passed again
    rows = (known + own) * (2 * BLOCK + 2 * 16 * 16)  # blocks, then keys and values of the dependency layer
    fine = 2 * 3 * 2 * (16 * 16 + 16 * 8)
    coarse = (2 + 2 * 3 * 1) * 16 * 16  # first step: one row per series
    in_blocks = 2 * 15 + 2 * 3 * 6  # pairs: 1 + … + 5 per series; one own candle sees 5 + itself
    in_layer = 2 * 3 * (5 + 6)
    flops = 2 * (rows + fine + coarse) + 4 * 16 * (2 * in_blocks + in_layer)
    weights = 2 * (2 * BLOCK + 2 * 16 * 16 + 16 * 16 + 16 * 8 + 16 * 16)  # two steps
    cache = 2 * 16 * 3 * ((10 + 0) + (10 + 6) + 16)  # three layers: read in step 1, in step 2, written
    assert predictor_cost(tiny_predictor, SHAPE) == Cost(flops, 4 * (weights + cache))
    assert predictor_cost(tiny_predictor, SHAPE, itemsize=2) == Cost(flops, 2 * (weights + cache))


def test_the_tokenizers_products_and_bytes_are_those_computed_by_hand(tiny_tokenizer):
    known, own = 2 * 5, 2 * 3 * 2
    products = known * (BLOCK + 6 * 16 + 16 * 7 + 2 * 16 * 16) + own * (BLOCK + 16 * 6)
    own_pairs = 2 * 3 * (6 + 7)
    flops = 2 * products + 4 * 16 * (2 * 15 + own_pairs)
    weights = BLOCK + 6 * 16 + 16 * 7 + BLOCK + 16 * 6
    cache = 2 * 16 * 2 * (known + own)
    assert tokenizer_cost(tiny_tokenizer, SHAPE) == Cost(flops, 4 * (weights + cache))


def test_the_floor_is_the_longer_of_products_and_bytes():
    predictor, tokenizer = Cost(100.0, 30.0), Cost(20.0, 10.0)
    assert floor(predictor, tokenizer, Rates(50.0, 10.0, 20.0)) == Floor(100 / 50 + 20 / 10, "products")
    assert floor(predictor, tokenizer, Rates(50.0, 10.0, 5.0)) == Floor(40 / 5, "bytes")


def operations(target, rows, weight, out_shape=None, **options):
    """Operations of a product with these shapes."""
    return 2 * math.prod(rows) * weight[-1]


@pytest.mark.parametrize("shape", [Shape(2, 3, 20, 6), Shape(1, 1, 20, 6), Shape(1, 40, 9, 12)])
def test_a_forecast_multiplies_a_little_more_than_the_floor(shape, tiny_tokenizer, tiny_predictor):
    forecaster = Forecaster(tiny_tokenizer.eval(), tiny_predictor.eval(), max_context=64)
    stamps = torch.ones(shape.series, shape.known + shape.horizon, 5, dtype=torch.long)
    given = torch.randn(shape.series, shape.known, 6), stamps[:, : shape.known], stamps[:, shape.known :], shape.paths
    forecaster.sample_normalised(*given)  # folds the weights, by products
    in_place = dict.fromkeys([torch.ops.aten.addmm_, torch.ops.aten.baddbmm_], operations)  # not counted by torch
    counter = FlopCounterMode(display=False, custom_mapping=in_place)
    with counter, sdpa_kernel(SDPBackend.MATH):  # the CPU's own kernel is not counted
        forecaster.sample_normalised(*given)
    least = predictor_cost(tiny_predictor, shape).flops + tokenizer_cost(tiny_tokenizer, shape).flops
    assert least <= counter.get_total_flops() < 1.3 * least


def test_a_window_that_slides_has_no_such_floor(tiny_tokenizer, tiny_predictor):
    forecaster = Forecaster(tiny_tokenizer, tiny_predictor, max_context=8)
    rates = Rates(1.0, 1.0, 1.0)
    assert forecast_floor(forecaster, Shape(1, 1, 7, 2), rates).seconds > 0
    with pytest.raises(ValueError, match="do not fit into 8"):
        forecast_floor(forecaster, Shape(1, 1, 7, 3), rates)


def test_a_copy_reads_and_writes_its_block(monkeypatch):
    readings = iter([0.0, 0.1, 0.1, 0.2, 0.2, 0.2, 0.25, 9.0])  # end; then loop, start, stop of two copies
    monkeypatch.setattr("tests.helpers.floor.time.perf_counter", lambda: next(readings))
    monkeypatch.setitem(COPIED, "cpu", 1000)
    assert copy_rate(torch.device("cpu")) == pytest.approx(2 * 1000 / 0.05)
