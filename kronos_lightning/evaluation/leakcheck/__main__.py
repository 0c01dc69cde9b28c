"""Forwarder of `python -m kronos_lightning.evaluation.leakcheck` to the command in `cli/`."""

from importlib import import_module

if __name__ == "__main__":
    import_module("kronos_lightning.cli.leakcheck").main()
