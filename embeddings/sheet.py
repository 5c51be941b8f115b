"""Search results as one HTML file: every query beside its neighbors, nothing to load from elsewhere."""

import base64
from collections.abc import Sequence
from html import escape
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from pretrain.data.decode import Unreadable, decode, read_mask
from pretrain.data.images import GOOD, Record
from pretrain.drawing import outlined

if TYPE_CHECKING:
    from embeddings.search import Answer

THUMBNAIL_PX = 160

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1c1c1e; --faint: #6e6e73; --line: #d9d9de; --card: #f5f5f7;
  --good: #1a7f37; --bad: #c9184a; }
@media (prefers-color-scheme: dark) { :root { --paper: #161618; --ink: #f2f2f4; --faint: #a0a0a8; --line: #3a3a3f;
  --card: #222226; --good: #5fd07f; --bad: #ff7a9c; } }
* { box-sizing: border-box; }
body { margin: 0; padding: 24px; background: var(--paper); color: var(--ink); font: 15px/1.4 system-ui, sans-serif; }
h1 { margin: 0; font-size: 22px; overflow-wrap: anywhere; }
p { margin: 4px 0 0; color: var(--faint); overflow-wrap: anywhere; }
section { display: grid; grid-template-columns: 212px minmax(0, 1fr); gap: 20px; margin-top: 24px; padding-top: 20px;
  border-top: 1px solid var(--line); }
ol { display: grid; grid-template-columns: repeat(auto-fill, minmax(136px, 1fr)); gap: 14px; margin: 0; padding: 0;
  list-style: none; }
figure { margin: 0; }
img { display: block; width: 100%; height: auto; border-radius: 6px; background: var(--card); }
figcaption { margin-top: 6px; font-size: 13px; overflow-wrap: anywhere; }
.distance { font-variant-numeric: tabular-nums; font-weight: 600; }
.path { display: block; color: var(--faint); font-size: 12px; }
.good { color: var(--good); }
.bad { color: var(--bad); }
@media (max-width: 640px) { body { padding: 16px; } section { grid-template-columns: 1fr; }
  section > figure { max-width: 212px; } }
"""


def neighbor_page(answers: Sequence["Answer"], data: Path, title: str, note: str) -> str:
    """A page of all queries. `note` says how exact the search was; paths are shown from `data` on."""
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_safe(title)}</title><style>{STYLE}</style></head><body><main>",
        f"<h1>{_safe(title)}</h1><p>{len(answers)} {'query' if len(answers) == 1 else 'queries'}; {_safe(note)}. "
        "Smaller distances are nearer; known defects are outlined.</p>",
    ]
    for answer in answers:
        caption = f"<strong>query</strong><span class=path>{_safe(str(answer.query))}</span>"
        summary = f"<span>{_safe(answer.summary or 'no other image')}</span>"
        parts.append(f"<section>{_figure(answer.query, None, caption + summary)}<ol>")
        parts += [f"<li>{_neighbor(record, distance, data)}</li>" for record, _, distance in answer.neighbors]
        parts.append("</ol></section>")
    return "\n".join([*parts, "</main></body></html>"])


def thumbnail(path: Path, mask: Path | None = None, size_px: int = THUMBNAIL_PX) -> str | None:
    """A image as a data URL, its defect outlined; none if it cannot be read any more."""
    try:
        pixels = decode(path, size_px).pixels
        if mask is not None:
            pixels = outlined(pixels, read_mask(mask, size_px), distance_px=2, width_px=1)
    except Unreadable:
        return None
    data = BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()


def _neighbor(record: Record, distance: float, data: Path) -> str:
    kind = (
        ""
        if not record.defect
        else f"<span class={'good' if record.defect == GOOD else 'bad'}>{_safe(record.defect)}</span>"
    )
    caption = (
        f"<span class=distance>{distance:.3g}</span> {_safe(record.category)} {kind}"
        f"<span class=path>{_safe(record.path.relative_to(data).as_posix())}</span>"
    )
    return _figure(record.path, record.mask, caption)


def _figure(path: Path, mask: Path | None, caption: str) -> str:
    source = thumbnail(path, mask)
    image = "<p>cannot be read any more</p>"
    if source is not None:
        size = f'width="{THUMBNAIL_PX}" height="{THUMBNAIL_PX}"'
        image = f'<img src="{source}" alt="{_safe(path.name)}" {size} loading="lazy">'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def _safe(text: str) -> str:
    """For HTML; names that are no UTF-8 are shown with question marks."""
    return escape(text.encode("utf-8", "replace").decode())
