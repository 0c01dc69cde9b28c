"""Pipeline from a checked configuration to results: plain functions, independent of console and Hydra's main."""
