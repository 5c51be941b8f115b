"""The schema of the YAML and the reader agree: on the example of the docs, and on mistakes."""

import copy
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from downstream.stations.schema import line_schema

DOCS = Path(__file__).resolve().parents[3] / "docs"


def examples(page: str) -> list[dict]:
    """What a page shows of a line's YAML."""
    return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)]


EXAMPLE, CAMERA = examples("line.md")


def is_valid(line: dict) -> bool:
    return jsonschema.Draft202012Validator(line_schema()).is_valid(line)


def test_the_schema_is_one_and_takes_the_example():
    jsonschema.Draft202012Validator.check_schema(line_schema())
    jsonschema.validate(EXAMPLE, line_schema())
    jsonschema.validate({"stations": [{"name": "cap", **CAMERA}]}, line_schema())


@pytest.mark.parametrize("page", ["mqtt.md", "modbus.md", "opcua.md", "webhook.md", "files.md"])
def test_the_examples_of_the_pages_on_sinks_are_right(page):
    for example in examples(page):
        assert example.keys() <= {"stations", "sinks"}
        jsonschema.validate({"stations": EXAMPLE["stations"], **example}, line_schema())


@pytest.mark.parametrize(
    "wrong",
    [lambda line: line.pop("stations"), lambda line: line["stations"][0].update(modle="x"),
     lambda line: line["stations"][0]["source"].update(type="foldr"), lambda line: line["stations"][0].pop("source"),
     lambda line: line["sinks"][0].update(nmae="x"), lambda line: line.update(check=True),
     lambda line: line["stations"][0].update(budget_ms=float("inf")),
     lambda line: line["stations"][0].update(source={**CAMERA["source"], "features": {"Width": [640]}}),
     lambda line: line["stations"][0].update(verdict="all"), lambda line: line["stations"][0].update(budget_ms="1")],
)  # fmt: skip
def test_mistakes_are_none(wrong):
    line = copy.deepcopy(EXAMPLE)
    wrong(line)
    assert not is_valid(line)


def test_every_key_is_described():
    def described(schema: object) -> bool:
        if isinstance(schema, list):
            return all(map(described, schema))
        if not isinstance(schema, dict):
            return True
        keys = [value for name, value in schema.get("properties", {}).items() if name != "type"]
        plain = [each for each in keys if "items" not in each]
        return all(each.get("description") for each in plain) and all(map(described, schema.values()))

    assert described(line_schema())
