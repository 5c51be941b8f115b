"""Each kind that a YAML can name has options that explain themselves, and every such dataclass has an entry."""

from dataclasses import fields, is_dataclass

import docstring_parser
import pytest

from downstream.stations.catalogue import FAMILIES
from downstream.stations.options import Options

ENTRIES = [(family, name, entry) for family, kinds in FAMILIES.items() for name, entry in kinds.items()]


@pytest.mark.parametrize(
    ("family", "name", "entry"), ENTRIES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_its_options_explain_themselves(family, name, entry):
    assert is_dataclass(entry.options) and entry.path.startswith(f"downstream.stations.{family}s.")
    described = docstring_parser.parse(entry.options.__doc__)
    assert described.short_description
    own = [field.name for field in fields(entry.options)]
    assert [parameter.arg_name for parameter in described.params] == own
    assert not {"type", "name", "stations"} & {*own}  # which stand beside them in the YAML


def test_all_options_can_be_named():
    assert {entry.options for _, _, entry in ENTRIES} == {*Options.__subclasses__()}
