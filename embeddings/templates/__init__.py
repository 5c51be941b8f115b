"""HTML pages that load nothing from elsewhere, by Jinja2: whatever is filled in is escaped."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def render(name: str, **values: object) -> str:
    """The page of the template `name`, a file beside this one."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = shown
    # Jinja2 would sort the keys, but the order of colors is that of the legend.
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
    return environment.get_template(name).render(values)


def shown(text: object) -> str:
    """File names need not be UTF-8: what is not is shown as question marks."""
    return str(text).encode("utf-8", "replace").decode()
