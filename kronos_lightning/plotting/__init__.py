"""One look for all plots and numbers: colours, axes, number formats. No data, no model."""
