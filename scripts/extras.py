"""The table of extras in docs/install.md: what each is for, and what it adds to an installation of heldout alone.

    python scripts/extras.py             # write it, from what is installed here
    python scripts/extras.py --check     # write nothing; exit code 1 if it lacks an extra

No size is typed: each is the sum of the files that the packages' own records list, over all that an extra brings in.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from pretrain.command import start
    from scripts.config import Extras

    start("scripts.extras:main", Extras)

import platform
import re
import sys
from collections.abc import Iterable
from configparser import ConfigParser
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pretrain.command import UserError
from scripts.config import Extras

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = REPOSITORY / "docs" / "install.md"
BEGIN = "<!-- extras: written by python scripts/extras.py from setup.cfg and what is installed -->"
END = "<!-- end of extras -->"
CUDA = re.compile("nvidia-|cuda-|triton$")


def main(config: Extras) -> int:
    setup, text = (REPOSITORY / "setup.cfg").read_text(), PAGE.read_text()
    if not config.check:
        PAGE.write_text(with_table(text, table(setup)))
        print(f"wrote {PAGE.name}")
    elif lacks(text, setup):
        print("error: docs/install.md has other extras than setup.cfg: run scripts/extras.py.", file=sys.stderr)
        return 1
    return 0


def lacks(text: str, setup: str) -> bool:
    """Whether the page says something else of extras than setup.cfg; sizes aside, which other machines have others."""
    return re.findall(r"^\| `([\w-]+)` \| (.+?) \|", text, re.MULTILINE) != [*purposes(setup).items()]


def purposes(setup: str) -> dict[str, str]:
    """What each extra is for: the comment above it in setup.cfg, as a phrase. Raises LookupError for one without."""
    section = re.search(r"^\[options\.extras_require\]\n(.*?)^\[", setup, re.MULTILINE | re.DOTALL)[1]
    found = {}
    for above, name in re.findall(r"((?:^#.*\n)*)^([\w-]+) =", section, re.MULTILINE):
        if not above:
            raise LookupError(f"setup.cfg does not say above the extra {name} what it is for")
        phrase = " ".join(line.removeprefix("# ") for line in above.splitlines()).rstrip(".")
        found[name] = phrase[0].lower() + phrase[1:]
    return found


def required(setup: str, extra: str = "") -> list[Requirement]:
    """What heldout itself requires on this machine, or one extra."""
    config = ConfigParser()
    config.read_string(setup)
    section, option = ("options.extras_require", extra) if extra else ("options", "install_requires")
    asked = map(Requirement, filter(None, config[section][option].splitlines()))
    return [package for package in asked if not package.marker or package.marker.evaluate()]


def closure(requirements: Iterable[Requirement]) -> dict[str, int]:
    """All packages that the requirements bring in, with the bytes of their files. Raises UserError where one is not
    installed."""
    found: dict[str, int] = {}
    seen, waiting = set(), [*requirements]
    while waiting:
        asked_for = waiting.pop()
        name, extras = canonicalize_name(asked_for.name), asked_for.extras or {""}
        if (name, *sorted(extras)) in seen:
            continue
        seen.add((name, *sorted(extras)))
        try:
            package = distribution(name)
        except PackageNotFoundError:
            raise UserError(f"{name} is not installed, so its size is not known: pip install '{name}'.") from None
        found[name] = sum(file.size or 0 for file in package.files or ())
        asked = map(Requirement, package.requires or ())
        waiting += [it for it in asked if not it.marker or any(it.marker.evaluate({"extra": e}) for e in extras)]
    return found


def table(setup: str) -> str:
    """What is shown between the marks."""
    own = closure(required(setup))
    cuda = sum(size for name, size in own.items() if CUDA.match(name))
    lines = [
        f"heldout itself takes {in_words(sum(own.values()))} in {len(own)} packages, of which CUDA's "
        f"libraries, torch's and faiss-gpu's, are {in_words(cuda)}.",
        f"An extra adds to that (Python {platform.python_version()}, {platform.system()}, {platform.machine()}):",
        "",
        "| extra | what it is for | installed | packages |",
        "|---|---|---|---|",
    ]
    for extra, purpose in purposes(setup).items():
        more = {name: size for name, size in closure(required(setup, extra)).items() if name not in own}
        lines.append(f"| `{extra}` | {purpose} | {in_words(sum(more.values()))} | {len(more)} |")
    return "\n".join(lines)


def in_words(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB" if size < 1e7 else f"{size / 1e6:.0f} MB"


def with_table(text: str, table: str) -> str:
    """The page with what stands between the two marks replaced."""
    before, _, rest = text.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise LookupError(f"the marks {BEGIN} and {END} are missing")
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"
