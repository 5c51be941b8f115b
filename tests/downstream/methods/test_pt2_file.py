"""torch's files: nothing in them is believed that could run."""

import os
import zipfile
from pathlib import Path

import pytest
import torch

from downstream.methods import pt2_file as pt2
from downstream.methods.exported import Exported
from pretrain.command import UserError


def repacked(source: Path, target: Path, change) -> Path:
    """A copy of an archive with its parts changed; names without the folder."""
    with zipfile.ZipFile(source) as archive:
        parts = {name.split("/", 1)[1]: archive.read(name) for name in archive.namelist()}
    change(parts)
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in parts.items():
            archive.writestr(f"m/{name}", data)
    return target


class Trap:
    """Unpickled, it leaves a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_nothing_in_a_pt2_is_unpickled_or_evaluated(pt2_file, tmp_path):
    mark = tmp_path / "sprung"
    torch.save(Trap(mark), trap := tmp_path / "trap.pt")
    target = tmp_path / "x.pt2"

    def edited(part: str, old: str, new: str):
        def change(parts: dict) -> None:
            assert old.encode() in parts[part]
            parts[part] = parts[part].replace(old.encode(), new.encode())

        return change

    def pickled(parts: dict) -> None:
        edited("data/weights/model_weights_config.json", '"use_pickle": false', '"use_pickle": true')(parts)
        parts.update({name: trap.read_bytes() for name in parts if "weights/weight_" in name})

    model, call = "models/model.json", f"__import__('os').mkdir('{mark}')"
    traps = [
        pickled,
        lambda parts: parts.update({"data/sample_inputs/model.pt": trap.read_bytes()}),
        lambda parts: parts.update({"data/weights/model.pt": trap.read_bytes()}),
        lambda parts: parts.update({"data/constants/opaque_obj_0": trap.read_bytes()}),
        lambda parts: parts.update({"data/aotinductor/model/x.so": b"code"}),
        edited(model, "Symbol('", call + "+Symbol('"),
        edited(model, '"guards_code": []', f'"guards_code": ["{call}"]'),
        edited(model, "torch.ops.aten.sqrt.default", "torch.ops.aten.from_file.default"),
        edited(model, "torch.ops.aten.sqrt.default", "os.system"),
        edited(model, '"name": "images"', '"name": "images, _=print(1)"'),
        edited(model, "builtins.tuple", "torch.Size"),
    ]
    assert Exported(repacked(pt2_file, target, lambda parts: None)).metadata["kind"] == "pt2"
    for change in traps:
        with pytest.raises(UserError, match="is not run"):
            Exported(repacked(pt2_file, target, change))
    assert not mark.exists()
    assert pt2.PARTS.fullmatch("models/model.json") and not pt2.PARTS.fullmatch("../models/model.json")
