"""Forward `python -m kronos_lightning.data.binance` to the command in `cli/`; the source is `data.sources.binance`."""

from importlib import import_module

if __name__ == "__main__":
    import_module("kronos_lightning.cli.download").run()
