"""scripts/defect_neighbors.py: means over seeds, and encoders that must not be measured."""

import json
from dataclasses import replace

import pytest

from embeddings.knn import VIEWS
from pretrain.command import Names, UserError
from pretrain.encoder import Encoder, Origin
from scripts.defect_neighbors import DefectNeighbors, main


def test_means_over_seeds_refuse_what_an_encoder_saw_and_are_recorded(demo_folder, tmp_path, capsys):
    for seed in (0, 1):
        encoder = Encoder(seed=10 + seed, origin=Origin("demo", ("leather",), True))
        encoder.save(tmp_path / f"runs/without-bottle-seed-{seed}/encoder.safetensors")
    asked = DefectNeighbors(
        demo_folder, Names("bottle"), Names("0,1"), tmp_path / "runs", 32, tmp_path / "f.json", tmp_path / "R.md"
    )
    main(asked)
    text = (tmp_path / "R.md").read_text()
    assert "Vectors as they are:" in text and "| bottle, 4 types of 12 |" in text and "±" in text
    assert len(json.loads((tmp_path / "f.json").read_text())[VIEWS[1]]["bottle"]) == 4
    with pytest.raises(UserError, match="leave_one_out.py"):
        main(replace(asked, seeds=Names("0,1,2")))
    Encoder(seed=10, origin=Origin("demo", ("bottle",), True)).save(
        tmp_path / "runs/without-bottle-seed-0/encoder.safetensors"
    )
    with pytest.raises(UserError, match="saw bottle"):
        main(asked)
