"""LightningCLI as its documentation shows it, for any module and data module: python plain.py PACKAGE fit -c FILE."""

import importlib
import sys


def main() -> None:
    cli = importlib.import_module(f"{sys.argv[1]}.cli")
    cli.LightningCLI(save_config_callback=None, args=sys.argv[2:])  # the callback needs a folder of the logger


if __name__ == "__main__":
    main()
