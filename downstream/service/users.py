"""Who may do what: users by name, each with a role and a token, of which only the SHA-256 is kept.

    # name role SHA-256 of the token
    ada engineer 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae

A token is drawn, not chosen (openssl rand -hex 32), so that a plain digest of it tells nothing.
"""

import hmac
import os
import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Literal, NamedTuple

from pretrain.command import UserError, nearest

Right = Literal["read", "inspect", "say", "configure", "export", "audit"]
RIGHTS: tuple[Right, ...] = ("read", "inspect", "say", "configure", "export", "audit")
# No role has all: whoever changes thresholds does not keep the log of it, and whoever reads the log changes nothing.
ROLES: Mapping[str, tuple[Right, ...]] = {
    "operator": ("read", "inspect", "say"),
    "engineer": ("read", "inspect", "say", "configure", "export"),
    "auditor": ("read", "export", "audit"),
}
NAME = re.compile(r"[\w.@-]{1,64}")
DIGEST = re.compile("[0-9a-f]{64}")
# What `printf %s $TOKEN | sha256sum` gives where TOKEN was not set.
NO_TOKEN = sha256(b"").hexdigest()


class User(NamedTuple):
    """`role` is one of ROLES, or none for who may do everything: the one token, and this machine without any."""

    name: str
    role: str | None = None
    digest: str = ""

    @property
    def rights(self) -> tuple[Right, ...]:
        return RIGHTS if self.role is None else ROLES[self.role]


LOCAL, BY_TOKEN = User("local"), User("token")


def read_users(text: str, source: str) -> list[User]:
    """From lines, where `source` is what to call them. Raises UserError for what is none of a user."""
    users: list[User] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        where = f"{source}, line {number}:"
        if len(words) != 3 or not NAME.fullmatch(words[0]):
            raise UserError(f"{where} a user is a line of name, role and SHA-256 of the token.")
        name, role, digest = words
        if role not in ROLES:
            raise UserError(f"{where} there is no role {role}; {nearest(role, ROLES)}")
        if not DIGEST.fullmatch(digest):
            raise UserError(f"{where} no SHA-256: printf %s TOKEN | sha256sum makes one of {name}'s token.")
        if digest == NO_TOKEN or any(digest == user.digest for user in users):
            raise UserError(f"{where} {name}'s token is empty, or another user's: openssl rand -hex 32 draws one.")
        if name in {LOCAL.name, BY_TOKEN.name, "service"} or any(name == user.name for user in users):
            raise UserError(f"{where} the name {name} is taken: give another.")
        users.append(User(name, role, digest))
    if not users:
        raise UserError(f"{source} names no user: give lines of name, role and SHA-256 of the token.")
    return users


def users_in(file: Path | None) -> list[User]:
    """From the file, else from the environment, else none. Raises UserError for what is none of a user."""
    if file is None:
        lines = os.environ.get("HELDOUT_USERS")
        return read_users(lines, "HELDOUT_USERS") if lines else []
    try:
        return read_users(file.read_text(), str(file))
    except (OSError, UnicodeDecodeError) as error:
        reason = f"the users in {file} cannot be read ({type(error).__name__})"
        raise UserError(f"{reason}: name a file of lines of name, role and SHA-256 of a token.") from None


def user_of(token: str, users: Sequence[User]) -> User | None:
    """Whose it is. How long that takes tells nothing: every user's is compared, in constant time."""
    digest, found = sha256(token.encode()).hexdigest(), None
    for user in users:
        if hmac.compare_digest(digest, user.digest):
            found = user
    return found


def refusal(user: User, right: Right) -> str:
    """Why somebody may not, and who may."""
    others = " or ".join(name for name, rights in ROLES.items() if right in rights)
    return f"{user.name} is {user.role}, and to {WORDS[right]} takes {others}: ask one."


WORDS: Mapping[Right, str] = {
    "read": "read results", "inspect": "inspect images", "say": "give feedback", "configure": "change the model or the "
    "threshold", "export": "export feedback", "audit": "read the audit log",
}  # fmt: skip
