"""The worst images of a manifest as one page that loads nothing from elsewhere."""

import base64
from io import BytesIO

from markupsafe import Markup
from PIL import Image

from downstream.inspection.manifest.part import Summary
from downstream.report.page import HERE, environment
from pretrain.data.places import Place

PAGE = "report.html"
SHOWN_PX, JPEG_QUALITY = 420, 80


def page_of(out: Place, about: dict, summary: Summary) -> str:
    """`about` names the images, the model and its threshold."""
    return (
        environment()
        .get_template("worst.html")
        .render(
            about=about,
            summary=summary,
            style=Markup((HERE / "report.css").read_text()),  # ours: escaping would break its quotes
            shown=[(row, _shown(out, row["overlay"])) for row in summary.worst],
        )
    )


def _shown(out: Place, overlay: str | None) -> str | None:
    """An overlay as a data URL; none where none was drawn."""
    if overlay is None:
        return None
    try:
        image = Image.open(BytesIO(out.read(overlay))).convert("RGB")
    except OSError:  # somebody removed it
        return None
    image.thumbnail((2 * SHOWN_PX, SHOWN_PX))
    data = BytesIO()
    image.save(data, "JPEG", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
