"""Secrets, which come from files, never from a command line that others can read."""

from pathlib import Path

from pretrain.command import UserError


def secret_in(path: Path) -> str:
    """The first line of a file. Raises UserError where there is none."""
    try:
        return (path.read_text().splitlines() or [""])[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = f"the secret in {path} cannot be read ({type(error).__name__})"
        raise UserError(f"{reason}: name a file of one line.") from None
