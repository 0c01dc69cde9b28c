"""Entry point of `python -m kronos_lightning.data.binance`; the command is in `cli/`, the source in `data.sources`."""

from importlib import import_module

if __name__ == "__main__":
    import_module("kronos_lightning.cli.download").main()
