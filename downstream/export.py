"""A fitted model as one file that runs anywhere: pixels in, score, map and decision out.

    python downstream/export.py models/bolt --to onnx                               # models/bolt.onnx
    python downstream/export.py models/bolt --to onnx-int8 --data FOLDER            # the FOLDER that it was fitted to
    python downstream/export.py models/bolt --to pt2                                # for torch alone
    python downstream/export.py models/bolt --to tensorrt                           # an engine, where trtexec is
    python downstream/detect.py run IMAGES --model models/bolt.onnx

The file is compared with the model before it is given its name, and not written where the answers differ: in fp32 by
more than 1e-4 of the score or of the map's highest value, in int8 by more accuracy than stated.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from downstream.export import Config, main
    from pretrain.command import run_command

    sys.exit(run_command(main, Config))

import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pretrain.command import UserError

if TYPE_CHECKING:
    import numpy as np

    from downstream.inspection.inspector import Inspector
    from pretrain.data.dataset import ImageSet

SUFFIXES = {"onnx": ".onnx", "onnx-int8": "-int8.onnx", "pt2": ".pt2", "tensorrt": ".engine"}
# Images that trtexec tunes for: one, as a camera gives them; and the most that the engine takes.
DEFAULT_BATCH, MAX_BATCH = 1, 16


@dataclass(frozen=True)
class Config:
    """Write a model as one file.

    Attributes:
        model: Folder of a model that downstream/detect.py fit wrote.
        to: onnx; onnx-int8, which is faster and needs --data; tensorrt, on a machine that has it; pt2, torch's own.
        out: The file. Default is MODEL.onnx, MODEL-int8.onnx, MODEL.engine or MODEL.pt2.
        data: What the model was fitted to. Test images that are in it are what the file is compared on.
        category: Which category, where that folder holds several. Default is the model's.
        input: What the graph takes; pixels are uint8 (b, h, w, 3), float is float32 (b, 3, h, w) in [0, 1].
        most_auroc_lost: An int8 file that costs more image AUROC is not written.
        most_decisions_changed: Nor one that decides otherwise on a larger share of the images.
        seven_bits: Weights of 7 bits in an int8 file, for x86 processors without VNNI.
        overwrite: Replace a file of that name.
    """

    model: tuple[Path, ...] = field(default=(), metadata={"positional": True})
    to: Literal["onnx", "onnx-int8", "tensorrt", "pt2"] = "onnx"
    out: Path | None = None
    data: Path | None = None
    category: str | None = None
    input: Literal["pixels", "float"] = "pixels"
    most_auroc_lost: float = 0.005
    most_decisions_changed: float = 0.05
    seven_bits: bool = False
    overwrite: bool = False


def main(config: Config) -> None:
    """Export, compare, and say what the file is worth."""
    if len(config.model) != 1:
        raise UserError("name one model, a folder that python downstream/detect.py fit wrote.")
    from downstream.inspection.inspector import Inspector

    (folder,) = config.model
    if folder.is_file():
        raise UserError(f"{folder} is a file: name the folder of the model, which detect.py fit wrote.")
    model = Inspector.load(folder)
    out = config.out or folder.resolve().with_name(folder.resolve().name + SUFFIXES[config.to])
    suffix = "." + SUFFIXES[config.to].rpartition(".")[2]
    if out.suffix != suffix:
        raise UserError(f"--out {out} must end in {suffix}, by which the file is known.")
    for path in (out, out.with_suffix(".onnx")) if config.to == "tensorrt" else (out,):
        if path.exists() and (path.is_dir() or not config.overwrite):
            raise UserError(f"{path} is there already: name another with --out, or replace the file with --overwrite.")
    if config.to == "onnx-int8":
        to_int8(model, folder, out, config)
    else:
        to_fp32(model, folder, out, config)
    print(f"model: {out} ({out.stat().st_size / 1e6:.0f} MB)")
    if model.minimum_area_px or getattr(model, "area_rule", None):
        print("note:  detect.py looks at the areas of regions too, the graph's own is_anomalous at the score alone")
    if config.to != "tensorrt":
        print(f"next:  python downstream/detect.py run IMAGE_OR_FOLDER --model {out}")


def to_fp32(model: "Inspector", folder: Path, out: Path, config: Config) -> None:
    """ONNX, pt2, or ONNX and from that an engine."""
    from downstream.exporting.onnx_file import (
        example,
        header_of,
        make_judge,
        onnx_model,
        probe_score,
        write_checked,
        write_onnx,
    )

    kind = "pt2" if config.to == "pt2" else "onnx"
    judge = make_judge(model, config.input == "float")
    header = header_of(model, folder, kind, judge, probe_score(judge))

    def write(path: Path) -> None:
        if kind == "pt2":
            from downstream.pt2 import write_pt2

            write_pt2(judge, example(judge), header, path)
        else:
            write_onnx(onnx_model(judge), header, path)

    images, of = images_to_compare(model, config)
    path = out.with_suffix(f".{kind}")
    print(f"compared on {of}: {write_checked(model, path, write, images)}")
    if config.to == "tensorrt":
        build_engine(path, out, judge.size_px, judge.takes_floats)


def to_int8(model: "Inspector", folder: Path, out: Path, config: Config) -> None:
    """Statistics anew through an int8 encoder; accuracy before and after."""
    import numpy as np

    from baselines.contract.method import Images
    from downstream.exporting.int8 import drift, probe_score_of, quantized, refitted
    from downstream.exporting.onnx_file import answers, header_of, make_judge, onnx_model, write_onnx
    from downstream.methods.exported import Exported

    if config.data is None:
        raise UserError("int8 is calibrated on good images: name with --data the folder that the model was fitted to.")
    if getattr(model, "area_rule", None):
        raise UserError("this model decides by area, a rule found on its fp32 maps: export it --to onnx.")
    takes_floats = config.input == "float"
    normals = Images(normals_of(model, config))
    ready = refitted(model, normals, takes_floats, config.seven_bits)
    judge = make_judge(ready, takes_floats)
    proto = quantized(onnx_model(judge), normals, takes_floats, config.seven_bits)
    trial = out.with_name(f".{out.stem}.trial.onnx")
    try:
        said = probe_score_of(proto, judge)
        write_onnx(proto, header_of(ready, folder, "onnx-int8", judge, said, seven_bits=config.seven_bits), trial)
        thresholds = (model.threshold.value, ready.threshold.value)
        tests = test_images(model, config)
        if tests is None:  # each normal scored without itself, before and after
            scores = np.array(model.normal_scores), np.array(ready.normal_scores)
            found = drift(*scores, thresholds, np.zeros(len(scores[0]), bool), "normals, each left out")
        else:
            pixels = tests.batch(range(len(tests)))
            labels = np.array([record.is_anomaly for record in tests.records])
            scores = answers(model.method, pixels)[0], answers(Exported(trial), pixels)[0]
            found = drift(*scores, thresholds, labels, "test images")
        print(f"int8, beside the model, on {found}")
        print(f"threshold {thresholds[0]:.4g} before, {thresholds[1]:.4g} after: {ready.threshold.why}")
        share = found.decisions_changed / found.count
        if found.auroc_lost > config.most_auroc_lost or share > config.most_decisions_changed:
            raise UserError(
                f"{out} is not written, since it moved too far (AUROC may fall by {config.most_auroc_lost:g}, "
                f"{config.most_decisions_changed:.0%} of decisions may change): use --to onnx, or allow more with "
                "--most-auroc-lost and --most-decisions-changed."
            )
        trial.replace(out)
    finally:
        trial.unlink(missing_ok=True)


def normals_of(model: "Inspector", config: Config) -> "ImageSet":
    """The good images that the model was fitted to, drawn from the folder as detect.py drew them."""
    from downstream.detect import Fit, good_images
    from downstream.methods.references import draw

    given = Fit(config.data, category=config.category or model.category, size_px=model.size_px)
    normals, wanted = good_images(given), len(model.method.wholes_)
    if len(normals) < wanted:
        raise UserError(
            f"{config.data} holds {len(normals)} good images, and the model was fitted to {wanted}: name the folder "
            "that detect.py fit was given."
        )
    return normals.subset(draw(len(normals), wanted, model.method.seed))


def test_images(model: "Inspector", config: Config) -> "ImageSet | None":
    """The test images in --data; none where there are none."""
    from pretrain.command import Names
    from pretrain.data.dataset import load
    from pretrain.data.images import has_layout

    if config.data is None or not (config.data.is_dir() and has_layout(config.data)):
        return None
    images = load(config.data, model.size_px, Names(config.category or model.category))
    tests = [i for i, record in enumerate(images.records) if record.split == "test"]
    return images.subset(tests) if tests else None


def images_to_compare(model: "Inspector", config: Config) -> "tuple[np.ndarray, str]":
    """uint8 (n, size, size, 3), and what they are."""
    import numpy as np

    if config.data is None:
        rng = np.random.default_rng(0)
        coarse = rng.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
        places = np.arange(model.size_px) * 8 // model.size_px
        return coarse[:, places][:, :, places], "generated patterns (images of yours with --data)"
    images = test_images(model, config) or normals_of(model, config)
    return images.batch(range(len(images))), f"images of {config.data}"


def build_engine(onnx: Path, out: Path, size_px: int, takes_floats: bool) -> None:
    """Have trtexec make an engine of an ONNX file. Raises UserError without it, with the command for elsewhere."""
    command = trtexec_command(onnx, out, size_px, takes_floats)
    if not shutil.which(command[0]):
        raise UserError(
            f"there is no trtexec here, so no engine was made; {onnx} is ready for it. On the machine with the GPU: "
            f"{' '.join(command)}; or run {onnx} itself with onnxruntime-gpu's TensorrtExecutionProvider."
        )
    try:
        subprocess.run(command, check=True)
    except subprocess.CalledProcessError as error:
        raise UserError(f"trtexec ended with exit code {error.returncode}: see what it says above.") from None


def trtexec_command(onnx: Path, out: Path, size_px: int, takes_floats: bool) -> list[str]:
    side = f"3x{size_px}x{size_px}" if takes_floats else f"{size_px}x{size_px}x3"
    batches = {"min": 1, "opt": DEFAULT_BATCH, "max": MAX_BATCH}
    shapes = [f"--{name}Shapes=images:{batch}x{side}" for name, batch in batches.items()]
    return ["trtexec", f"--onnx={onnx}", f"--saveEngine={out}", *shapes]
