"""scripts/extras.py: what it reads in setup.cfg and in packages' records, and that docs/install.md is up to date; and
scripts/lowest.txt, which has to follow setup.cfg as well."""

import platform
import re

import pytest
from packaging.utils import canonicalize_name
from packaging.version import Version

from pretrain.command import UserError
from scripts import extras
from scripts.config import Extras

SETUP = """[options]
install_requires =
    safetensors>=0.4
    gone>=1; sys_platform == "nowhere"

[options.extras_require]
# To do this,
# and that.
one =
    jinja2>=3
two =
    absent>=1

[tool:pytest]
"""


def test_the_page_has_the_extras_of_setup_cfg():
    assert extras.main(Extras(check=True)) == 0
    setup = (extras.REPOSITORY / "setup.cfg").read_text()
    assert {"export", "serve", "test"} < {*extras.purposes(setup)}
    more = setup.replace("\n[tool:pytest]", "# Something new.\nnew =\n    jinja2\n\n[tool:pytest]")
    assert extras.lacks(extras.PAGE.read_text(), more)


def test_what_an_extra_is_for_is_the_comment_above_it():
    with pytest.raises(LookupError, match="extra two"):
        extras.purposes(SETUP)
    assert extras.purposes(SETUP.replace("two =", "# Other.\ntwo =")) == {"one": "to do this, and that", "two": "other"}


def test_a_size_is_that_of_all_that_comes_with_a_package():
    alone, whole = (extras.closure(extras.required(SETUP, extra)) for extra in ("", "one"))
    assert {*alone} == {"safetensors"} and {*whole} == {"jinja2", "markupsafe"}
    assert all(size > 10_000 for size in (alone | whole).values())


def test_a_package_that_is_not_there_has_no_size():
    with pytest.raises(UserError, match="absent is not installed"):
        extras.closure(extras.required(SETUP, "two"))


def test_the_table_is_put_between_the_marks():
    page = f"before\n{extras.BEGIN}\nold\n{extras.END}\nafter\n"
    written = extras.with_table(page, "| new |")
    assert written == f"before\n{extras.BEGIN}\n\n| new |\n\n{extras.END}\nafter\n"
    with pytest.raises(LookupError):
        extras.with_table("no marks", "")
    assert [extras.in_words(size) for size in (100_000, 25_000_000, 7_400_000_000)] == ["0.1 MB", "25 MB", "7.4 GB"]


@pytest.mark.skipif((platform.system(), platform.machine()) != ("Linux", "x86_64"), reason="of Linux on x86_64")
def test_the_lowest_versions_that_are_tested_are_those_of_setup_cfg():
    """Where it fails: bash scripts/test_lowest.sh --write. A bound that this leaves below what is pinned is none that
    can be installed, and has to rise."""
    pins = re.findall(
        r"^([a-z0-9-]+)==(\S+) .*\bheldout \(setup\.cfg\)",
        (extras.REPOSITORY / "scripts" / "lowest.txt").read_text(),
        re.MULTILINE,
    )
    setup = (extras.REPOSITORY / "setup.cfg").read_text()
    asked = [*extras.required(setup), *extras.required(setup, "test")]
    bounds = {
        canonicalize_name(package.name): [Version(it.version) for it in package.specifier if it.operator == ">="]
        for package in asked
    }
    assert {name: [Version(version)] for name, version in pins} == bounds
