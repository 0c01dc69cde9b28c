"""Kit that measures this project on a GPU: results, training, forecasts, and a whole run; see `__main__`."""
