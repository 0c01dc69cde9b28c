"""Pictures of `growth`: time and memory on logarithmic axes, light background."""

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from kronos_lightning.plotting.theme import FORECASTERS, GREY, TEXT

SIZE = (10.0, 4.2)  # inches
DPI = 130


def draw(rows, output):
    """Draw a picture for each measured part: `growth-prepare.png`, `growth-forecast.png`, `growth-evaluate.png`."""
    for name, parts, function in (
        ("prepare", ("prepare", "symbols"), _prepare),
        ("forecast", ("context", "horizon"), _forecast),
        ("evaluate", ("evaluate",), _evaluate),
    ):
        if all(rows.get(part) for part in parts):
            figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained", facecolor="white")
            single = name == "evaluate" and not rows.get("training")
            function(figure.subplots(1, 1 if single else 2, squeeze=False)[0], rows)
            figure.savefig(output / f"growth-{name}.png")


def _prepare(axes, rows):
    one, many = rows["prepare"], rows["symbols"]
    for ax, unit, label in ((axes[0], "seconds", "seconds"), (axes[1], "MiB", "MiB more at the peak")):
        _curve(ax, one, "candles", unit, "one file: read, examined, written", 0)
        _curve(ax, many, "candles", unit, "several files of 100,000 candles", 1)
        _curve(ax, one, "candles", f"load {unit}", "first batch of prepared candles", 2)
        _linear(ax, one, "candles", unit)
        _labels(ax, "candles", label)
    axes[0].set_title("Time of prepare")
    axes[1].set_title("Memory of prepare")


def _forecast(axes, rows):
    _curve(axes[0], rows["context"], "known", "seconds", "24 steps", 0)
    _linear(axes[0], rows["context"], "known", "seconds")
    _labels(axes[0], "known candles", "seconds a forecast")
    axes[0].set_title("Context (Kronos-small, 10 paths)")
    _curve(axes[1], rows["horizon"], "horizon", "seconds", "after 400 candles", 0)
    axes[1].axvline(113, color=GREY, linestyle=":", linewidth=1)
    axes[1].annotate("the window slides →", (108, 12), color=GREY, fontsize=9, ha="right")
    _linear(axes[1], [row for row in rows["horizon"] if row["horizon"] <= 113], "horizon", "seconds")
    _labels(axes[1], "forecast candles", "seconds a forecast")
    axes[1].set_title("Horizon (Kronos-small, 10 paths)")


def _evaluate(axes, rows):
    found = [row | {"all": row["cutoffs"] * row["paths"]} for row in rows["evaluate"]]
    paths, cutoffs = found[0]["paths"], found[-1]["cutoffs"]
    _curve(axes[0], [row for row in found if row["paths"] == paths], "all", "seconds", f"cutoffs × {paths} paths", 0)
    _curve(axes[0], _along(found, cutoffs), "all", "seconds", f"{cutoffs} cutoffs × paths", 1)
    _linear(axes[0], [row for row in found if row["paths"] == paths], "all", "seconds")
    _labels(axes[0], "cutoffs × paths", "seconds")
    axes[0].set_title("Forecasts of an evaluation (mini, 360 + 24)")
    if not rows.get("training"):
        return
    names = [f"{row['processes']} process(es)\n× {row['threads']} thread(s)" for row in rows["training"]]
    rates = [row["windows/s"] for row in rows["training"]]
    bars = axes[1].bar(names, rates, color=FORECASTERS[0], width=0.55)
    axes[1].bar_label(bars, fmt="%.0f", color=TEXT)
    axes[1].set_ylabel("windows a second")
    axes[1].spines[["top", "right"]].set_visible(False)
    axes[1].set_title("Training (mini, batches of 48)")


def _along(found, cutoffs):
    return sorted((row for row in found if row["cutoffs"] == cutoffs), key=lambda row: row["all"])


def _curve(ax, rows, x, y, label, colour):
    ax.loglog([row[x] for row in rows], [row[y] for row in rows], "o-", label=label, color=FORECASTERS[colour], ms=4)


def _linear(ax, rows, x, y):
    """Draw a line of slope 1 through the last point."""
    first, last = rows[0], rows[-1]
    start = last[y] * first[x] / last[x]
    ax.loglog([first[x], last[x]], [start, last[y]], "--", color=GREY, linewidth=1, label="linear", zorder=0)
    ax.legend(frameon=False, fontsize=8.5, loc="upper left")


def _labels(ax, x, y):
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    measured = [value for line in ax.lines if line.get_marker() == "o" for value in line.get_ydata()]
    low, high = min(measured) / 1.5, max(measured) * 1.5
    ax.set_ylim(low, high * (high / low) ** 0.35)  # room for the legend
    for axis in (ax.xaxis, ax.yaxis):
        first, last = axis.get_view_interval()
        axis.set_major_locator(LogLocator(subs=(1.0,) if last / first > 200 else (1.0, 2.0, 5.0)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        axis.set_minor_formatter(NullFormatter())
    ax.grid(which="major", color="#e5e7eb", linewidth=0.8)
    ax.spines[["top", "right"]].set_visible(False)
