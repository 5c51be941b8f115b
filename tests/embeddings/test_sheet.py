"""The page of search results: names as they are, defects outlined."""

from pathlib import Path

from PIL import Image

from embeddings.sheet import Neighbor, SearchResult, neighbor_page, thumbnail
from pretrain.data.images import Record


def test_thumbnails_outline_the_defect(demo_folder, tmp_path):
    whole_image = demo_folder / "bottle/test/scratch/000.png"
    mask = demo_folder / "bottle/ground_truth/scratch/000_mask.png"
    assert thumbnail(whole_image, mask) != thumbnail(whole_image)
    assert thumbnail(tmp_path / "gone.png") is None
    with Image.open(whole_image) as image:
        assert image.size != (160, 160)


def test_names_that_are_no_utf8_and_images_that_are_gone_are_shown():
    gone = Record(Path("/data/nut/test/b\udce9nt/a.png"), "nut", "test", "b\udce9nt")
    result = SearchResult(Path("/q&a.png"), [Neighbor(gone, 3, 0.12345)])
    page = neighbor_page([result], Path("/data"), "one", "exact")
    assert "1 query; exact" in page and "/q&amp;a.png" in page and "nut/test/b?nt/a.png" in page
    assert page.count("cannot be read any more") == 2 and ">0.123<" in page and "1 nut b?nt" in page
