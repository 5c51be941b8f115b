"""Secrets, which come from files, never from a command line that others can read."""

import os
from pathlib import Path

from pretrain.command import UserError

MIN_TOKEN_LENGTH = 16


def secret_in(path: Path) -> str:
    """The first line of a file. Raises UserError where there is none."""
    try:
        return (path.read_text().splitlines() or [""])[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = f"the secret in {path} cannot be read ({type(error).__name__})"
        raise UserError(f"{reason}: name a file of one line.") from None


def token_in(file: Path | None) -> str | None:
    """From the file, else from the environment. Raises UserError for one that is easily guessed."""
    token = secret_in(file) if file else os.environ.get("HELDOUT_TOKEN")
    if token is not None and (len(token) < MIN_TOKEN_LENGTH or not (token.isascii() and token.isprintable())):
        raise UserError(
            f"a token must have {MIN_TOKEN_LENGTH} plain characters or more: openssl rand -hex 32 makes one."
        )
    return token
