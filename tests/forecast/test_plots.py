"""Pictures say what they show."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from kronos_lightning.forecast.plots import UP, draw_candles, draw_fan, live_figure


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
