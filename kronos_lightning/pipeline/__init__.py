"""From a checked configuration to results: plain functions that join the parts, without console or Hydra's main."""
