"""A second engine, written for reading: dictionaries, plain floats, a branch a rule, and nothing of the first."""


def naive_run(candles, signals, rules, cash, intrabar=None, per=1):
    """Equity at each close and the trades as (direction, entry, exit, reason); `per` intrabar candles a candle."""
    curve, trades, ambiguous, resolved_intrabar = [cash], [], 0, 0
    held, peak, ignore_until, dead = None, cash, 0, False
    order = signals[0]
    rows = candles.to_dict("records")
    small = {} if intrabar is None else {row["timestamps"]: row for row in intrabar.to_dict("records")}
    interval = rows[1]["timestamps"] - rows[0]["timestamps"]

    def sell_or_buy_back(t, price, reason):
        nonlocal cash, held
        amount = held["amount"]
        cash = cash + amount * price if held["long"] else cash - amount * price
        cash -= rules.cost * amount * price
        trades.append((1 if held["long"] else -1, held["row"], t, reason))
        held = None

    def at_market(price, buying):
        return price * (1 + rules.slippage) if buying else price * (1 - rules.slippage)

    def levels():
        sign = 1 if held["long"] else -1
        stop = None if rules.stop_loss is None else held["price"] * (1 - sign * rules.stop_loss)
        target = None if rules.take_profit is None else held["price"] * (1 + sign * rules.take_profit)
        return stop, target

    def look(row):
        """What one candle, big or small, says: (price, reason), 'both' or None."""
        stop, target = levels()
        if held["long"]:
            stop_gap = stop is not None and row["open"] <= stop
            target_gap = target is not None and row["open"] >= target
            stop_hit = stop is not None and row["low"] <= stop
            target_hit = target is not None and row["high"] >= target
        else:
            stop_gap = stop is not None and row["open"] >= stop
            target_gap = target is not None and row["open"] <= target
            stop_hit = stop is not None and row["high"] >= stop
            target_hit = target is not None and row["low"] <= target
        if stop_gap:
            return row["open"], "stop"
        if target_gap:
            return row["open"], "target"
        if stop_hit and target_hit:
            return "both"
        if stop_hit:
            return stop, "stop"
        return (target, "target") if target_hit else None

    for t in range(1, len(rows)):
        row = rows[t]
        wanted = {1: "long", -1: "short" if rules.side == "long_short" else "flat", 0: None, "out": "flat"}[order]
        state = "flat" if held is None else "long" if held["long"] else "short"
        if wanted is not None and wanted != state:
            if held is not None:
                price = at_market(row["open"], buying=not held["long"])
                sell_or_buy_back(t, price, "drawdown" if order == "out" else "signal")
            if wanted != "flat" and cash > 0:
                price = at_market(row["open"], buying=wanted == "long")
                spent = cash * rules.max_position / (1 + rules.cost)
                held = {"long": wanted == "long", "amount": spent / price, "price": price, "row": t}
                cash = cash - spent - rules.cost * spent if held["long"] else cash + spent - rules.cost * spent
        if held is not None:
            found = look(row)
            if found == "both":
                found, inside = None, [small.get(row["timestamps"] + i * interval / per) for i in range(per)]
                if intrabar is not None and None not in inside:
                    found = next((seen for seen in map(look, inside) if seen is not None), None)
                if found in (None, "both"):
                    ambiguous, found = ambiguous + 1, (levels()[0], "stop")
                else:
                    resolved_intrabar += 1
            if found is not None:
                price, reason = found
                if reason == "stop":
                    price = at_market(price, buying=not held["long"])
                sell_or_buy_back(t, price, reason)
        value = cash
        if held is not None:
            value += held["amount"] * row["close"] * (1 if held["long"] else -1)
        curve.append(value)
        if dead or t < ignore_until:
            order = 0
            continue
        peak = value if t == ignore_until else max(peak, value)
        if value <= 0:
            dead, order = True, "out"
        elif rules.max_drawdown is not None and value <= peak * (1 - rules.max_drawdown + 1e-12):
            dead, ignore_until, order = rules.cooldown is None, t + (rules.cooldown or 0), "out"
        else:
            order = signals[t]
    if held is not None:
        sell_or_buy_back(len(rows) - 1, at_market(rows[-1]["close"], buying=not held["long"]), "end")
        curve[-1] = cash
    return curve, trades, ambiguous, resolved_intrabar
