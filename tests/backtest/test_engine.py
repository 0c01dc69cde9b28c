"""The engine's rules one by one, against a second implementation, and its blindness to what comes later."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kronos_lightning.backtest import ExecutionRules, MarketData, MarketDataError, run_backtest
from kronos_lightning.backtest.strategy import BUY, HOLD, SELL
from tests.helpers.markets import DAY, FLAT, FREE, LIMITED, frame, market, random_frame, run
from tests.helpers.naive_backtest import naive_run

BOTH = ExecutionRules(stop_loss=0.05, take_profit=0.15)
SHORT = BOTH.model_copy(update={"side": "long_short"})


def exit_of(result):
    (trade,) = result.trade_table().itertuples()
    return trade.exit_price, trade.reason


def test_a_signal_fills_at_the_next_open_not_at_its_own_close():
    result = run(market(FLAT, (110, 120, 105, 120), (120, 130, 120, 130)), [BUY, HOLD, HOLD], FREE)
    assert result.trades["entry_price"].tolist() == [110]
    assert result.equity[-1] == pytest.approx(1000 * 130 / 110)


def test_a_signal_on_the_last_candle_never_fills():
    result = run(market(FLAT, FLAT, FLAT), [HOLD, HOLD, BUY], FREE)
    assert len(result.trade_table()) == 0
    assert result.equity.tolist() == [1000.0] * 3


def test_hold_keeps_the_position_and_a_repeated_buy_does_not_trade_again():
    result = run(market(*[FLAT] * 6), [BUY, HOLD, BUY, BUY, HOLD, HOLD], LIMITED.model_copy(update={"cost": 0.01}))
    assert len(result.trades) == 1
    assert (result.position[1:] == result.position[1]).all()


def test_costs_are_paid_on_both_sides_from_the_invested_share():
    result = run(market(FLAT, FLAT, FLAT), [BUY, SELL, HOLD], LIMITED.model_copy(update={"cost": 0.01}))
    quantity = 1000 / (100 * 1.01)
    assert result.trades["costs"] == pytest.approx(quantity * 100 * 0.02)
    assert result.equity[-1] == pytest.approx(quantity * 100 * 0.99)
    assert result.trades["profit"] == pytest.approx(result.equity[-1] - 1000)


def test_maximum_position_limits_the_share_of_the_equity():
    result = run(market(FLAT, (100, 200, 100, 200), FLAT), [BUY, HOLD, HOLD], ExecutionRules(max_position=0.5))
    assert result.equity[1] == pytest.approx(1500)


def test_sell_closes_a_long_position_or_turns_it_short():
    candles = market(FLAT, FLAT, FLAT, (100, 100, 50, 50), (50, 50, 50, 50))
    signals = [BUY, SELL, HOLD, HOLD, HOLD]
    assert run(candles, signals, FREE).equity[-1] == pytest.approx(1000)
    assert run(candles, signals, ExecutionRules(side="long_short")).equity[-1] == pytest.approx(1500)


def test_stop_loss_fills_at_its_level_inside_a_candle():
    assert exit_of(run(market(FLAT, FLAT, (98, 99, 94, 97), FLAT), [BUY, 0, 0, 0], BOTH)) == (95, "stop")


def test_a_position_can_be_stopped_in_the_candle_it_is_opened_in():
    result = run(market(FLAT, (100, 101, 94, 99), FLAT), [BUY, HOLD, HOLD], BOTH)
    assert result.trades[["entry", "exit"]].tolist() == [(1, 1)]
    assert exit_of(result) == (95, "stop")


def test_a_gap_through_the_stop_fills_at_the_open():
    assert exit_of(run(market(FLAT, FLAT, (90, 99, 85, 97), FLAT), [BUY, 0, 0, 0], BOTH)) == (90, "stop")


def test_take_profit_fills_at_its_level_and_a_gap_beyond_it_at_the_open():
    price, reason = exit_of(run(market(FLAT, FLAT, (110, 120, 105, 107), FLAT), [BUY, 0, 0, 0], BOTH))
    assert (price, reason) == (pytest.approx(115), "target")
    assert exit_of(run(market(FLAT, FLAT, (118, 120, 90, 107), FLAT), [BUY, 0, 0, 0], BOTH)) == (118, "target")


def test_the_stop_comes_before_the_target_in_a_candle_that_holds_both_and_is_counted():
    result = run(market(FLAT, FLAT, (100, 120, 90, 110), FLAT), [BUY, HOLD, HOLD, HOLD], BOTH)
    assert exit_of(result) == (95, "stop")
    assert (result.ambiguous, result.resolved_intrabar) == (1, 0)


def test_stop_and_target_of_a_short_position_are_mirrored():
    def short(*candle):
        return exit_of(run(market(FLAT, FLAT, candle, FLAT), [SELL, HOLD, HOLD, HOLD], SHORT))

    assert short(100, 106, 99, 100) == (105, "stop")
    assert short(108, 109, 99, 100) == (108, "stop")
    assert short(100, 100, 84, 90) == (85, "target")
    assert short(80, 100, 80, 90) == (80, "target")


def test_after_a_stop_a_new_buy_enters_again():
    result = run(market(FLAT, FLAT, (98, 99, 94, 97), FLAT, FLAT), [BUY, HOLD, BUY, HOLD, HOLD], BOTH)
    assert [time.day for time in result.trade_table()["entry_time"]] == [2, 4]


def test_slippage_worsens_fills_at_the_market_on_both_sides():
    rules = ExecutionRules(slippage=0.01, side="long_short")
    table = run(market(*[FLAT] * 4), [BUY, SELL, HOLD, HOLD], rules).trade_table()
    assert table["entry_price"].tolist() == pytest.approx([101, 99])
    assert table["exit_price"].tolist() == pytest.approx([99, 101])  # the second at the end


def test_slippage_worsens_stops_but_not_targets():
    rules = BOTH.model_copy(update={"slippage": 0.01})
    stopped = run(market(FLAT, FLAT, (98, 99, 94, 97), FLAT), [BUY, HOLD, HOLD, HOLD], rules)
    assert exit_of(stopped) == (pytest.approx(101 * 0.95 * 0.99), "stop")
    gapped = run(market(FLAT, FLAT, (90, 99, 85, 97), FLAT), [BUY, HOLD, HOLD, HOLD], rules)
    assert exit_of(gapped) == (pytest.approx(90 * 0.99), "stop")
    reached = run(market(FLAT, FLAT, (110, 120, 105, 107), FLAT), [BUY, HOLD, HOLD, HOLD], rules)
    assert exit_of(reached) == (pytest.approx(101 * 1.15), "target")


FALL = (FLAT, FLAT, (100, 100, 79, 79), (78, 78, 78, 78), *[FLAT] * 5)


def test_the_drawdown_halt_closes_at_the_next_open_and_ends_trading():
    result = run(market(*FALL), [BUY, HOLD, HOLD, *[BUY] * 6], ExecutionRules(max_drawdown=0.2))
    assert result.halts.tolist() == [pd.Timestamp("2024-01-03", tz="UTC")]
    assert exit_of(result) == (78, "drawdown")
    assert result.equity[-1] == pytest.approx(780)
    assert result.halted.tolist() == [False, False, *[True] * 7]


@pytest.mark.parametrize("loss", [0.05, 0.1, 0.2])
def test_one_stop_of_just_the_limit_reaches_it_whatever_rounding_says(loss):
    rules = ExecutionRules(stop_loss=loss, max_drawdown=loss)
    for price in np.random.default_rng(0).uniform(10, 1e5, 300):
        flat, fall = (price,) * 4, (price, price, price / 2, price / 2)
        result = run(market(flat, flat, fall, flat), [BUY, HOLD, HOLD, HOLD], rules)
        assert exit_of(result)[1] == "stop"
        assert len(result.halts) == 1, price


@pytest.mark.parametrize(("cooldown", "entry"), [(1, 4), (3, 6)])
def test_after_the_cooldown_trading_resumes_with_a_new_highest_equity(cooldown, entry):
    rules = ExecutionRules(max_drawdown=0.2, cooldown=cooldown)
    result = run(market(*FALL), [BUY] * 9, rules)
    assert result.trades["entry"].tolist() == [1, entry]  # the halt at row 2 suppresses that many signals
    assert len(result.halts) == 1  # 780 is no drawdown any more
    assert np.flatnonzero(result.halted).tolist() == list(range(2, 2 + cooldown))


def test_a_cooldown_of_no_candle_is_refused():
    with pytest.raises(ValueError, match=r"cooldown\n.*greater than 0"):
        ExecutionRules(cooldown=0)


def test_nothing_left_ends_trading_in_spite_of_a_cooldown():
    rules = ExecutionRules(side="long_short", cooldown=1, max_drawdown=0.5)
    result = run(market(FLAT, FLAT, (100, 250, 100, 250), (150, 150, 150, 150), *[FLAT] * 3), [SELL] * 7, rules)
    assert result.equity[2] == pytest.approx(-500)
    assert len(result.trades) == 1
    assert result.halted[2:].all()
    assert result.returns[2:].tolist() == [0.0] * 4  # of nothing


def test_an_open_position_is_closed_and_paid_for_at_the_end():
    result = run(market(FLAT, FLAT, FLAT), [BUY, HOLD, HOLD], LIMITED.model_copy(update={"cost": 0.01}))
    assert exit_of(result) == (100, "end")
    assert result.equity[-1] == pytest.approx(1000 / 1.01 * 0.99)


def test_a_run_needs_candles_and_one_signal_for_each():
    with pytest.raises(ValueError, match="one signal for each of 3 candles"):
        run(market(FLAT, FLAT, FLAT), [BUY, HOLD], FREE)
    with pytest.raises(ValueError, match="at least one candle"):
        MarketData.of(frame(FLAT).iloc[:0], DAY)


def test_the_callers_candles_may_be_of_any_memory_layout_and_stay_as_they_are():
    candles = frame(*FALL)
    before = candles.copy()
    part = run(MarketData.of(candles.iloc[::2], 2 * DAY), [BUY] * 5, FREE)
    assert part.equity[1] == pytest.approx(790)
    pd.testing.assert_frame_equal(candles, before)


AMBIGUOUS = frame(FLAT, FLAT, (100, 120, 90, 110), FLAT)


def settled_by(*inside, start="2024-01-03"):
    intrabar = frame(*inside, interval=DAY / 2, start=start)
    return run(MarketData.of(AMBIGUOUS, DAY, intrabar), [BUY, HOLD, HOLD, HOLD], BOTH)


def test_finer_candles_tell_what_came_first():
    result = settled_by((100, 120, 99, 110), (110, 111, 90, 110))
    assert exit_of(result) == (pytest.approx(115), "target")
    assert (result.ambiguous, result.resolved_intrabar) == (0, 1)
    result = settled_by((100, 110, 90, 110), (110, 120, 100, 110))
    assert exit_of(result) == (95, "stop")
    assert (result.ambiguous, result.resolved_intrabar) == (0, 1)


@pytest.mark.parametrize(
    ("intrabar", "start"),
    [
        ([(100, 120, 90, 110), FLAT], "2024-01-03"),  # ambiguous themselves
        ([(100, 120, 99, 110), FLAT], "2024-01-03 12:00"),  # the first is missing
        ([FLAT, FLAT], "2024-01-03"),  # reach neither
        ([(100, 120, 99, 110), FLAT], "2024-02-01"),  # of another time
    ],
)
def test_where_finer_candles_have_no_answer_the_stop_counts(intrabar, start):
    result = settled_by(*intrabar, start=start)
    assert exit_of(result) == (95, "stop")
    assert (result.ambiguous, result.resolved_intrabar) == (1, 0)


def test_finer_candles_that_do_not_fill_a_candle_are_refused():
    for interval in (DAY, DAY / 2.5):
        with pytest.raises(MarketDataError, match=r"do not fill candles of 1 days .*; use a shorter interval"):
            MarketData.of(AMBIGUOUS, DAY, frame(FLAT, FLAT, interval=interval))


PER = 4
RULES = st.builds(
    ExecutionRules,
    cost=st.sampled_from([0.0, 0.001, 0.02]),
    max_position=st.sampled_from([1.0, 0.4]),
    stop_loss=st.sampled_from([None, 0.01, 0.05]),
    take_profit=st.sampled_from([None, 0.02, 0.06]),
    max_drawdown=st.sampled_from([None, 0.05, 0.2]),
    side=st.sampled_from(["long_only", "long_short"]),
    slippage=st.sampled_from([0.0, 0.005]),
    cooldown=st.sampled_from([None, 1, 4]),
)


def random_market(seed, length):
    """Candles made of PER finer ones, some of those missing."""
    rng = np.random.default_rng(seed)
    intrabar = random_frame(rng, length * PER, DAY / PER, deviation=0.008)
    grouped = intrabar.groupby(np.arange(len(intrabar)) // PER)
    how = {"timestamps": "first", "open": "first", "high": "max", "low": "min", "close": "last"}
    signals = rng.choice([BUY, HOLD, SELL], length, p=[0.25, 0.5, 0.25]).astype(np.int8)
    return grouped.agg(how), intrabar[rng.random(len(intrabar)) > 0.05], signals


@settings(deadline=None, max_examples=100)
@given(seed=st.integers(0, 10_000), rules=RULES, use_finer=st.booleans())
def test_equity_and_trades_equal_those_of_a_naive_second_implementation(seed, rules, use_finer):
    candles, intrabar, signals = random_market(seed, 60)
    intrabar = intrabar if use_finer else None
    result = run_backtest(MarketData.of(candles, DAY, intrabar), signals, rules, 1000.0)
    curve, trades, ambiguous, resolved_intrabar = naive_run(candles, signals.tolist(), rules, 1000.0, intrabar, PER)
    np.testing.assert_allclose(result.equity, curve, rtol=1e-9)
    table = result.trade_table()
    got = zip(table["direction"], result.trades["entry"], result.trades["exit"], table["reason"], strict=True)
    assert list(got) == trades
    assert (result.ambiguous, result.resolved_intrabar) == (ambiguous, resolved_intrabar)


def test_the_random_markets_reach_every_rule():
    rules = ExecutionRules(
        cost=0.001, stop_loss=0.02, take_profit=0.02, max_drawdown=0.05, side="long_short", cooldown=4
    )
    reasons, counts = set(), np.zeros(3, dtype=int)
    for seed in range(20):
        candles, intrabar, signals = random_market(seed, 60)
        result = run_backtest(MarketData.of(candles, DAY, intrabar), signals, rules, 1000.0)
        reasons |= set(result.trade_table()["reason"])
        counts += result.ambiguous, result.resolved_intrabar, len(result.halts)
    assert reasons == {"signal", "stop", "target", "drawdown", "end"}
    assert (counts >= 10).all()


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10_000), rules=RULES, cut=st.integers(2, 58))
def test_when_later_candles_change_then_everything_before_is_identical(seed, rules, cut):
    candles, intrabar, signals = random_market(seed, 60)
    changed, changed_intrabar, changed_signals = candles.copy(), intrabar.copy(), signals.copy()
    prices = ["open", "high", "low", "close"]
    changed.loc[cut:, prices] *= 1.7
    later = changed_intrabar["timestamps"] >= candles["timestamps"][cut]
    changed_intrabar.loc[later, prices] *= 0.6
    changed_signals[cut:] = -signals[cut:]
    before = run_backtest(MarketData.of(candles, DAY, intrabar), signals, rules, 1000.0)
    after = run_backtest(MarketData.of(changed, DAY, changed_intrabar), changed_signals, rules, 1000.0)
    for name in ("equity", "position", "halted"):
        np.testing.assert_array_equal(getattr(before, name)[:cut], getattr(after, name)[:cut])
    closed = [result.trades[result.trades["exit"] < cut] for result in (before, after)]
    np.testing.assert_array_equal(*closed)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), rules=RULES, cut=st.integers(2, 57))
def test_the_order_for_a_candle_ignores_all_of_that_candle(seed, rules, cut):
    """A candle that opens as before but moves otherwise is entered and left at its open just the same."""
    candles, _, signals = random_market(seed, 60)
    changed = candles.copy()
    changed.loc[cut, ["high", "low", "close"]] *= [3.0, 0.3, 2.0]
    changed_signals = signals.copy()
    changed_signals[cut:] = -signals[cut:]

    def at_the_open(candles, signals):
        trades = run_backtest(MarketData.of(candles, DAY), signals, rules, 1000.0).trade_table()
        time = candles["timestamps"][cut]
        left = trades[(trades["exit_time"] == time) & trades["reason"].isin(["signal", "drawdown"])]
        entered = trades[trades["entry_time"] == time]
        return left["exit_price"].tolist(), entered[["direction", "entry_price"]].to_numpy().tolist()

    assert at_the_open(candles, signals) == at_the_open(changed, changed_signals)
