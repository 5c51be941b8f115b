"""detect.py promote, roll-back and versions: which version of a model is in use. Without torch, so at once."""

import sys

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from downstream.learning.config import Promote, RollBack, Versions
from downstream.learning.versions import FOLDER, PROOF, Version, history_of, version_in_use, versions_of
from downstream.learning.versions import promote as put_into_use
from downstream.learning.versions import roll_back as put_back
from pretrain.command import UserError
from pretrain.reading import read_json


def promote(config: Promote) -> None:
    before = version_in_use(config.model)
    newest = max(version.number for version in versions_of(config.model))
    if config.version is None and newest == before:
        raise UserError(f"the newest version of {config.model}, {newest}, is in use already: learn, or name another.")
    version = put_into_use(config.model, newest if config.version is None else config.version, config.by)
    print(f"version {version.number} of {config.model} is in use; version {before} stays")


def roll_back(config: RollBack) -> None:
    before = version_in_use(config.model)
    version = put_back(config.model, config.version, config.by)
    print(f"version {version.number} of {config.model} is in use again; version {before} stays")


def versions(config: Versions) -> None:
    """The table of versions, and how each came into use."""
    table = Table(title=f"versions of {escape(str(config.model))}", title_justify="left")
    for title in ("version", "", "made", "learned from", "when it was proved, of images kept apart"):
        table.add_column(title, no_wrap=title != "learned from")
    for version in versions_of(config.model):
        in_use = "[green]in use[/]" if version.is_in_use else ""
        table.add_row(str(version.number), in_use, version.made, learned_from(version), proved(config, version))
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    for change in history_of(config.model):
        print(
            f"{change.at or 'at first':25} version {change.version} {change.how}{f' by {change.by}' * bool(change.by)}"
        )


def learned_from(version: Version) -> str:
    if version.learned is None:
        return "fitted"
    return f"{version.learned['good']} good, {version.learned['defective']} defective"


def proved(config: Versions, version: Version) -> str:
    """What its proof said, beside the version that was in use then."""
    try:
        said = read_json(config.model / FOLDER / str(version.number) / PROOF)
        before, after = said["figures"]["in_use"], said["figures"]["new"]
        return (
            f"{after['false_alarms']} false alarms of {after['good']}, {after['missed']} missed of "
            f"{after['defective']} (version {said['in_use']}: {before['false_alarms']}, {before['missed']})"
        )
    except (OSError, ValueError, KeyError, TypeError):
        return ""
