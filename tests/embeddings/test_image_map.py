"""The map: what is similar lies together."""

import numpy as np
import pytest
from PIL import Image

from embeddings.config import ImageMap
from embeddings.image_map import layout, main
from pretrain.command import Names, UserError


@pytest.mark.parametrize("method", ["tsne", "pca"])
def test_clusters_stay_together_whatever_their_scale(method):
    generator = np.random.default_rng(0)
    centers = generator.normal(size=(3, 20))
    for scale in (1.0, 1e-3):  # features of a random encoder differ by a thousandth of their length
        vectors = 1 + scale * (np.repeat(centers, 30, axis=0) + generator.normal(0, 0.1, (90, 20)))
        coordinates = layout(vectors.astype("f4"), method, seed=0)
        assert coordinates.shape == (90, 2) and coordinates.min() >= 0 and coordinates.max() <= 1
        middles = coordinates.reshape(3, 30, 2).mean(axis=1)
        spread = np.linalg.norm(coordinates.reshape(3, 30, 2) - middles[:, None], axis=2).mean()
        apart = min(np.linalg.norm(middles[a] - middles[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
        assert apart > 2 * spread
        np.testing.assert_array_equal(layout(vectors.astype("f4"), method, seed=0), coordinates)


def test_command(pooled, tmp_path, capsys):
    asked = {"vectors": pooled.folder, "page": tmp_path / "m/map.html", "png": tmp_path / "m/map.png"}
    main(ImageMap(**asked, method="pca", max_images=40))
    page = (tmp_path / "m/map.html").read_text()
    assert "40 of 90 images of demo data" in page and page.count("data:image/jpeg") == 40
    assert '"by": "category"' in page
    main(ImageMap(**asked, category=Names("bottle"), split=Names("test")))
    page = (tmp_path / "m/map.html").read_text()
    assert '"by": "defect"' in page and page.count("data:image/jpeg") == 18
    with Image.open(tmp_path / "m/map.png") as image:
        assert image.size == (1192, 996)
    with pytest.raises(UserError, match="2 images make no map"):
        main(ImageMap(**asked, max_images=2))
