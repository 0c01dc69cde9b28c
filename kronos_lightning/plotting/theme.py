"""Colours of plots and pages, and the axes that several plots share.

Figures are created without pyplot, so no figure has to be closed.
"""

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateFormatter, AutoDateLocator

mpl.rcParams["text.parse_math"] = False  # a "$" in the name of a file is no formula

UP, DOWN, FORECAST, WARNING = "#1f9d72", "#d1495b", "#2b6cb0", "#b7791f"
TEXT, GREY, LIGHT_GREY = "#111827", "#6b7280", "#9ca3af"
FORECASTERS = (FORECAST, WARNING, "#7c3aed", GREY)  # colours of forecasters, in the order in which these are given
SEVERITIES = {"error": DOWN, "warning": WARNING, "info": "#6b8fb3"}
BANDS = ((0.025, 0.975, "#dfe9f3"), (0.10, 0.90, "#bfd3e7"), (0.25, 0.75, "#95b6d8"))  # lower, upper quantile, colour
MAX_POINTS = 4000  # per curve; longer curves are thinned


def date_axis(axes: Axes) -> None:
    """Put dates on the x axis: finer dates on shorter axes, each label with all larger units up to the year."""
    locator = AutoDateLocator()
    formatter = AutoDateFormatter(locator)
    formatter.scaled = {0.5: "%H:%M\n%b %d\n%Y", 7: "%b %d\n%Y", 30: "%b\n%Y", 365: "%Y"}  # by days between ticks
    axes.xaxis.set(major_locator=locator, major_formatter=formatter)
