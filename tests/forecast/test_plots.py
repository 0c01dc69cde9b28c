"""Plots say what they show."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.dates import num2date
from matplotlib.figure import Figure

from kronos_lightning.forecast.plots import draw_candles, draw_fan, live_figure
from kronos_lightning.plotting.theme import UP, date_axis


def pixels(figure, axes, points):
    """Colours of a drawn figure at points of some axes."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    columns, rows = axes.transData.transform(points).astype(int).T
    return np.asarray(canvas.buffer_rgba())[::-1][rows, columns, :3] / 255


def test_the_bands_of_a_fan_have_the_colours_of_the_legend_and_leave_candles_visible():
    figure = Figure()
    axes = figure.subplots()
    spread = np.linspace(-100, 100, 401)[:, None]
    draw_fan(axes, spread * np.ones(5), np.arange(5))
    draw_candles(axes, np.array([[-30.0, 30.0, -30.0, 30.0]]), np.array([1]))
    legend = [to_rgb(handle.get_facecolor()[0]) for handle in axes.get_legend_handles_labels()[0][:3]]
    assert len(set(legend)) == 3
    drawn = pixels(figure, axes, [(3.5, 88), (3.5, 65), (3.5, 25), (1.2, 15)])
    np.testing.assert_allclose(drawn, [*legend, to_rgb(UP)], atol=0.01)


@pytest.mark.parametrize(
    ("interval", "label"), [("1D", "2024-12-30"), ("7D", "2024-12-30"), ("1h", "2024-12-30\n00:00")]
)
def test_the_live_fan_names_the_year_and_the_hour_of_candles_shorter_than_a_day(interval, label):
    stamps = pd.date_range("2024-12-30", periods=30, freq=interval, tz="UTC")
    volumes = live_figure(np.ones((20, 5)), np.ones((3, 10, 5)), stamps, "").axes[1]
    assert volumes.get_xticklabels()[0].get_text() == label


@pytest.mark.parametrize(
    ("span", "form"),
    [
        ("4h", "%H:%M\n%b %d\n%Y"),
        ("4D", "%H:%M\n%b %d\n%Y"),
        ("31D", "%b %d\n%Y"),
        ("1500D", "%b\n%Y"),
        ("9000D", "%Y"),
    ],
)
def test_every_label_of_a_date_axis_goes_up_to_the_year_and_none_covers_another(span, form):
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    begin = pd.Timestamp("2023-08-09 02:00")
    axes.plot([begin, begin + pd.Timedelta(span)], [0, 1])
    date_axis(axes)
    FigureCanvasAgg(figure).draw()
    labels = axes.get_xticklabels()
    assert len(labels) >= 5
    assert [label.get_text() for label in labels] == [f"{num2date(place):{form}}" for place in axes.get_xticks()]
    edges = [label.get_window_extent().intervalx for label in labels]
    assert all(left[1] < right[0] for left, right in pairwise(edges))
