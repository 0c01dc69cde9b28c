"""Name of a cutoff, from which the random numbers of its forecast are seeded."""

from datetime import datetime

import numpy as np
import pandas as pd


def cutoff_name(stamp: np.datetime64 | datetime) -> str:
    """Return the milliseconds from 1970 to the cutoff, in UTC and as text.

    Every route names a cutoff this way, so that the same moment has the same random numbers everywhere.

    Args:
        stamp: open time of the last known candle; a stamp without a zone is UTC.
    """
    return str(pd.Timestamp(stamp).as_unit("ns").value // 1_000_000)
