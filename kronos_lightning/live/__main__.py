"""Entry point of `python -m kronos_lightning.live`; the command is in `cli/`."""

from importlib import import_module

if __name__ == "__main__":
    import_module("kronos_lightning.cli.live").main()
