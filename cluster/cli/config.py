"""`outertrain config`: explains the keys of the configuration."""

import json
import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import click

from cluster.cli import options
from common.config import Config, MixtureConfig
from common.config.key import Section, entries, section_of
from common.configfile import toml, type_name
from common.errors import UserError

WIDTH = 100


class Described(NamedTuple):
    """What is printed about a key; one object of `--json`."""

    key: str
    type: str
    default: Any
    bounds: str
    what: str
    cost: str

    def text(self) -> str:
        head = f"{self.key} = {toml(self.default)}    {self.type}{self.bounds and ', ' + self.bounds}"
        body = f"{self.what} Cost: {self.cost}" if self.cost else self.what
        return "\n".join([head, textwrap.fill(body, WIDTH, initial_indent="    ", subsequent_indent="    ")])


@click.command()
@click.argument("section", required=False)
@options.as_json
def command(section: str | None, as_json: bool) -> None:
    """Explain the configuration keys: type, default, bounds, meaning, and what they cost.

    SECTION is a section such as outer (default: all). Change a value with --set outer.updates=500, or in a TOML file.
    """
    chosen = choose(section)
    keys = [key for part in chosen for key in describe(part)]
    if as_json:
        print(json.dumps([key._asdict() for key in keys]))
        return
    for part in chosen:
        if part.NAME:
            print(f"[{part.NAME}]  {(type(part).__doc__ or '').strip()}\n")
        print("\n".join(key.text() for key in describe(part)), end="\n\n")


def choose(name: str | None) -> Sequence[Section]:
    """The section of this name, or the whole configuration and all its sections but the mixture's."""
    config = Config()
    sections = [getattr(config, entry.field) for entry in entries(Config)]
    named = {section.NAME: section for section in sections if isinstance(section, Section)}
    if name is None:
        return [config, *named.values()]
    named[MixtureConfig.NAME] = MixtureConfig()  # its defaults cannot be set where there is no mixture
    if name not in named:
        raise UserError(f"the configuration has no section {name!r}: choose from {', '.join(named)}")
    return [named[name]]


def describe(section: Section) -> list[Described]:
    """The keys of a section, without those that are sections themselves."""
    return [
        Described(
            key=entry.name,
            type=type_name(entry.kind),
            default=getattr(section, entry.field),
            bounds=" | ".join(entry.choices()) or entry.key.form or entry.bounds().replace("must be ", ""),
            what=entry.key.what,
            cost=entry.key.cost,
        )
        for entry in entries(type(section))
        if not isinstance(getattr(section, entry.field), Section) and section_of(entry.kind) is None
    ]
