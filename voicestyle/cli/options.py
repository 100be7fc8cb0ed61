"""Command line flags for the options of a request, from the table in `voicestyle.options`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import click

from voicestyle.options import OPTIONS, OptionValues

T = TypeVar("T")


def option_flags(local: bool, **defaults: str) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Decorate a command with one flag per option, each passed by the option's name; None where it is not given.

    local: for a command without a server, only the options that have a meaning there, and no --format: the name of the
    image file decides. defaults: text for the help of some flags, in place of the table's default.
    """

    def decorate(command: Callable[..., T]) -> Callable[..., T]:
        for name in reversed(OptionValues.__annotations__):
            option = OPTIONS[name]
            if not local or (option.local and name != "format"):
                values = click.Choice(option.choices) if option.choices else click.IntRange(option.low, option.high)
                text = f"{option.help[0].upper()}{option.help[1:]}.  [default: {defaults.get(name, option.default)}]"
                command = click.option(f"--{name}", type=values, help=text)(command)
        return command

    return decorate
