"""Figures of neighbors: by hand, by chance, and on images."""

import json
from pathlib import Path

import numpy as np
import pytest

from embeddings.config import Knn
from embeddings.knn import VIEWS, chance, defect_figures, main, neighbors, pooled, vote
from pretrain.command import Names, UserError
from pretrain.data.dataset import load
from pretrain.encoder import Encoder


def test_neighbors_are_others_nearest_first():
    angles = np.radians([0, 1, 3, 90, 92])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype("f4") * 5
    assert neighbors(vectors, 2).tolist() == [[1, 2], [0, 2], [1, 0], [4, 2], [3, 2]]
    same = np.ones((4, 2), np.float32)
    found = neighbors(same, 2)
    assert found.shape == (4, 2)


def test_chance_is_what_random_neighbors_give():
    labels = np.array(["a"] * 6 + ["b"] * 3)
    assert chance(labels, labels) == pytest.approx((6 * 5 / 8 + 3 * 2 / 8) / 9)
    generator = np.random.default_rng(0)
    drawn = [
        labels[position] == labels[(position + generator.integers(1, 9)) % 9]
        for _ in range(3000)
        for position in range(9)
    ]
    assert chance(labels, labels) == pytest.approx(np.mean(drawn), abs=0.02)


def test_vote_is_balanced_and_ties_go_to_the_nearest():
    labels = np.array(["a", "a", "a", "b"])
    around = np.array([["a", "b", "b"], ["a", "a", "b"], ["c", "a", "d"], ["b", "a", "c"]])
    # b (twice), a, c (a tie: the nearest), b (a tie: the nearest)
    assert vote(around, labels) == pytest.approx((1 / 3 + 1) / 2)


def test_perfect_and_random_vectors(demo_folder):
    images = load(demo_folder, 32, ["bottle"])
    types = sorted({record.defect for record in images.records})
    perfect = np.eye(len(types), dtype=np.float32)[[types.index(record.defect) for record in images.records]]
    generator = np.random.default_rng(0)
    perfect += generator.normal(0, 1e-3, perfect.shape).astype("f4")
    figures = defect_figures(perfect, images)["bottle"]
    assert (figures.defective, figures.defect_types) == (12, 4)
    assert figures.among_defective_1 == 1 and figures.among_all_1 == 1 and figures.vote > 0.8
    assert figures.among_defective_5 == pytest.approx(2 / 5)  # there are three of a kind
    noise = [
        defect_figures(generator.normal(size=perfect.shape).astype("f4"), images)["bottle"].among_defective_1
        for _ in range(60)
    ]
    assert np.mean(noise) == pytest.approx(figures.chance_defective, abs=0.06)


def test_good_images_can_be_taken_as_the_origin(demo_folder):
    images = load(demo_folder, 32, ["bottle"])
    generator = np.random.default_rng(0)
    types = sorted({record.defect for record in images.records})
    directions = np.eye(len(types), 8) * 0.1
    directions[types.index("good")] = 0
    vectors = 50 + directions[[types.index(record.defect) for record in images.records]]
    vectors = (vectors + generator.normal(0, 0.01, vectors.shape)).astype("f4")
    assert defect_figures(vectors, images, VIEWS[1])["bottle"].among_defective_1 == 1


def test_command_shows_the_random_encoder_beside(demo_folder, tmp_path, capsys):
    Encoder(seed=3, input_size_px=32).save(tmp_path / "encoder.safetensors")
    main(Knn(demo_folder, tmp_path / "encoder.safetensors", Names("bottle,leather"), json=tmp_path / "k.json"))
    shown = capsys.readouterr().out
    assert "random" in shown and "of the same category" in shown and "demo data" in shown
    found = json.loads((tmp_path / "k.json").read_text())
    assert list(found) == ["random", str(tmp_path / "encoder.safetensors")]
    images = load(demo_folder, 32, ["bottle", "leather"])
    again = defect_figures(pooled(Encoder(seed=0), images), images)["bottle"]
    assert found["random"]["categories"]["bottle"]["among_all_5"] == pytest.approx(again.among_all_5)
    with pytest.raises(UserError, match="no category in"):
        main(Knn(demo_folder / "bottle/../bottle", Path("random"), size_px=32, categories=Names("botle")))
