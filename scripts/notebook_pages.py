"""Notebooks as pages of the site: a hook of MkDocs, which mkdocs.yml names. It runs nothing: it shows the outputs that
`python scripts/notebooks.py` left in them."""

import json
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page


class NotebookFile(File):
    """A file that MkDocs makes a page of, and to whose page links lead."""

    def is_documentation_page(self) -> bool:
        return True


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Notebooks are pages."""
    for file in [file for file in files if file.src_uri.endswith(".ipynb")]:
        files.remove(file)
        files.append(NotebookFile(file.src_uri, config.docs_dir, config.site_dir, config.use_directory_urls))
    return files


def on_page_read_source(page: Page, config: MkDocsConfig) -> str | None:
    """Their text."""
    if not page.file.src_uri.endswith(".ipynb"):
        return None
    return markdown(json.loads(Path(page.file.abs_src_path).read_text(encoding="utf-8")))


def markdown(notebook: dict) -> str:
    """Cells one after the other; pictures lie in the page."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/jpeg" in data:
                parts.append(f"![what the cell shows](data:image/jpeg;base64,{data['image/jpeg']})")
            else:
                text = "".join(output.get("text") or data["text/plain"])
                parts.append(f"```text\n{text.rstrip()}\n```")
    return "\n\n".join(parts) + "\n"
