"""The worst images of a manifest as one page that loads nothing from elsewhere."""

from io import BytesIO

from PIL import Image

from downstream.inspection.manifest.part import Summary
from downstream.report.page import environment
from pretrain.data.places import Place
from pretrain.drawing import data_url

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
    return data_url(image, JPEG_QUALITY)
