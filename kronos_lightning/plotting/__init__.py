"""Shared style of plots and numbers: colours, axes and number formats, independent of data and models."""
