"""The real freqtrade beside our engine: what `make parity` runs."""
