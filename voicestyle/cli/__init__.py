"""The `voicestyle` command."""

from voicestyle.cli.main import main

__all__ = ["main"]
