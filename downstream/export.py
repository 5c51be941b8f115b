"""A fitted model as one file that runs anywhere: pixels in, score, map and decision out.

    python downstream/export.py models/bolt --to onnx                               # models/bolt.onnx
    python downstream/export.py models/bolt --to onnx-int8 --data FOLDER            # the FOLDER that it was fitted to
    python downstream/export.py models/bolt --to openvino                           # models/bolt.xml and bolt.bin
    python downstream/export.py models/bolt --to tensorrt                           # an engine, where trtexec is
    python downstream/detect.py run IMAGES --model models/bolt.onnx

The file is compared with the model before it is given its name, and not written where the answers differ: in fp32 by
more than 1e-4 of the score or of the map's highest value, in int8 by more accuracy than stated.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from downstream.exporting.config import Config
    from pretrain.command import start

    start("downstream.export:main", Config)

import shutil
import subprocess
from pathlib import Path

import numpy as np

from baselines.contract.method import Images
from downstream.exporting.config import Config
from downstream.exporting.int8 import Drift, drift, quantized, quantized_probe_score, refitted, saturates
from downstream.exporting.onnx_file import (
    header_of,
    make_graph,
    onnx_model,
    predicted_arrays,
    probe_score,
    write_checked,
    write_onnx,
)
from downstream.exporting.openvino_file import write_openvino
from downstream.inspection.images import good_images
from downstream.inspection.inspector import Inspector
from downstream.methods.ensemble import Ensemble
from downstream.methods.exported import Exported
from downstream.methods.references import draw
from pretrain.command import Names, UserError
from pretrain.data.channels import PLAIN
from pretrain.data.dataset import ImageSet, layout_of, load
from pretrain.data.layouts import has_layout
from pretrain.data.size import Size, sides
from pretrain.files import scratch_folder, whole_file

SUFFIXES = {"onnx": ".onnx", "onnx-int8": "-int8.onnx", "openvino": ".xml", "tensorrt": ".engine"}
# Images that trtexec tunes for: one, as a camera gives them; and the most that the engine takes.
DEFAULT_BATCH, MAX_BATCH = 1, 16


def main(config: Config) -> None:
    """Export, compare, and say what the file is worth."""
    if len(config.model) != 1:
        raise UserError("name one model, a folder that python downstream/detect.py fit wrote.")
    (folder,) = config.model
    if folder.is_file():
        raise UserError(f"{folder} is a file: name the folder of the model, which detect.py fit wrote.")
    model = Inspector.load(folder, "cpu")
    if model.channels.lights > 1:
        raise UserError(f"{folder} sees several lights, which no exported file does yet: run its folder by detect.py.")
    out = config.out or folder.resolve().with_name(folder.resolve().name + SUFFIXES[config.to])
    suffix = "." + SUFFIXES[config.to].rpartition(".")[2]
    if out.suffix != suffix:
        raise UserError(f"--out {out} must end in {suffix}, by which the file is known.")
    beside = {"tensorrt": (out.with_suffix(".onnx"),), "openvino": (out.with_suffix(".bin"),)}
    for path in (out, *beside.get(config.to, ())):
        if path.exists() and (path.is_dir() or not config.overwrite):
            raise UserError(f"{path} is there already: name another with --out, or replace the file with --overwrite.")
    if config.to == "openvino":
        to_openvino(model, folder, out, config)
    elif config.to == "onnx-int8":
        to_int8(model, folder, out, config)
    else:
        to_fp32(model, folder, out, config)
    size = sum(path.stat().st_size for path in {out, out.with_suffix(".bin" if config.to == "openvino" else suffix)})
    print(f"model: {out} ({size / 1e6:.0f} MB)")
    if model.minimum_area_px or model.area_rule:
        print("note:  detect.py looks at the areas of regions too, the graph's own is_anomalous at the score alone")
    if model.zone_rule:
        said = "detect.py decides" if config.to == "openvino" else "detect.py and serve.py decide"
        file = "ONNX file" if config.to == "tensorrt" else "file"
        print(f"note:  {said} by the zones in the {file}, the graph's own is_anomalous does not")
    if model.alignment:
        print("note:  detect.py and serve.py align images before the graph sees them, which does not by itself")
    if model.channels != PLAIN:
        print(f"note:  detect.py brings {model.channels} to the 8 bits that the graph sees, which does not by itself")
    if config.to != "tensorrt":
        print(f"next:  python downstream/detect.py run IMAGE_OR_FOLDER --model {out}")


def to_fp32(model: Inspector, folder: Path, out: Path, config: Config) -> None:
    """ONNX, or ONNX and from that an engine."""
    graph = make_graph(model, config.input == "float")
    header = header_of(model, folder, "onnx", graph, probe_score(graph))
    images, of = images_to_compare(model, config)
    path = out.with_suffix(".onnx")
    result = write_checked(
        model, path, lambda trial: write_onnx(onnx_model(graph), header, trial), images, config.device
    )
    print(f"compared on {of}: {result}")
    if config.to == "tensorrt":
        build_engine(path, out, graph.size_px, graph.takes_floats)


def to_openvino(model: Inspector, folder: Path, out: Path, config: Config) -> None:
    """OpenVINO's own two files, by way of ONNX."""
    graph = make_graph(model, config.input == "float")
    header = header_of(model, folder, "openvino", graph, probe_score(graph))
    images, of = images_to_compare(model, config)
    result = write_checked(model, out, lambda trial: write_openvino(onnx_model(graph), header, trial), images)
    print(f"compared on {of}: {result}")


def to_int8(model: Inspector, folder: Path, out: Path, config: Config) -> None:
    """Statistics anew through an int8 encoder; accuracy before and after."""
    if config.data is None:
        raise UserError("int8 is calibrated on good images: name with --data the folder that the model was fitted to.")
    if isinstance(model.method, Ensemble):
        raise UserError(
            "int8 learns the statistics of one scale anew, and this model has several: export it --to onnx."
        )
    if "learned" in model.metadata:
        raise UserError(
            "int8 learns the statistics of the fit anew, without this version's feedback: export --to onnx."
        )
    if model.area_rule:
        raise UserError("this model decides by area, a rule found on its fp32 maps: export it --to onnx.")
    if model.zone_rule:
        raise UserError("this model decides by zones, whose thresholds are of its fp32 maps: export it --to onnx.")
    if model.alignment:
        raise UserError("this model aligns images, and int8 is calibrated on images as they lie: export it --to onnx.")
    takes_floats = config.input == "float"
    normals = Images(normals_of(model, config))
    seven_bits = config.seven_bits or saturates()
    if seven_bits and not config.seven_bits:
        print("note:  weights have 7 bits, as this processor has no VNNI: 8 would be multiplied wrongly on it")
    requantized = refitted(model, normals, takes_floats, seven_bits)
    graph = make_graph(requantized, takes_floats)
    proto = quantized(onnx_model(graph), normals, takes_floats, seven_bits)
    score = quantized_probe_score(proto, graph)
    header = header_of(requantized, folder, "onnx-int8", graph, score, seven_bits=seven_bits)
    # Hidden until it was compared: nobody may find a file that answers otherwise.
    out.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(out.name, out.parent) as place:
        trial = place / out.name
        write_onnx(proto, header, trial)
        result = compared(model, requantized, trial, test_images(model, config), config.device)
        print(f"int8, beside the model, on {result}")
        print(
            f"threshold {model.threshold.value:.4g} before, {requantized.threshold.value:.4g} after: "
            f"{requantized.threshold.why}"
        )
        share = result.decisions_changed / result.count
        if result.auroc_lost > config.max_auroc_loss or share > config.max_changed_decisions:
            raise UserError(
                f"{out} is not written, since it moved too far (AUROC may fall by {config.max_auroc_loss:g}, "
                f"{config.max_changed_decisions:.0%} of decisions may change): use --to onnx, or allow more with "
                "--max-auroc-loss and --max-changed-decisions."
            )
        trial.replace(out)


def compared(model: Inspector, requantized: Inspector, file: Path, tests: ImageSet | None, device: str) -> Drift:
    """What int8 changed on the test images, or where there are none on the normals, each scored without itself."""
    thresholds = (model.threshold.value, requantized.threshold.value)
    if tests is None:
        before, after = np.array(model.normal_scores), np.array(requantized.normal_scores)
        return drift(before, after, thresholds, np.zeros(len(before), bool), "normals, each left out")
    pixels = tests.batch(range(len(tests)))
    labels = np.array([record.is_anomaly for record in tests.records])
    before, after = (predicted_arrays(method, pixels)[0] for method in (model.method, Exported(file, device=device)))
    return drift(before, after, thresholds, labels, "test images")


def normals_of(model: Inspector, config: Config) -> ImageSet:
    """The good images that the model was fitted to: those whose pixels it names, or of a model that names none, drawn
    from the folder as detect.py drew them."""
    layout = layout_of(config.data, config.layout, model.metadata)
    normals = good_images(
        config.data, config.category or model.category, model.size_px, layout=layout, channels=model.channels
    )
    wanted, named = len(model.method.pooled_), set(model.metadata.get("learned_from", ()))
    learned = [i for i, entry in enumerate(normals.entries) if entry.digest.hex() in named]
    if len(learned) == wanted:
        return normals.subset(learned)
    if len(normals) < wanted:
        raise UserError(
            f"{config.data} holds {len(normals)} good images, and the model was fitted to {wanted}: name the folder "
            "that detect.py fit was given."
        )
    return normals.subset(draw(len(normals), wanted, model.method.seed))


def test_images(model: Inspector, config: Config) -> ImageSet | None:
    """The test images in --data; none where there are none."""
    layout = config.data and layout_of(config.data, config.layout, model.metadata)
    if config.data is None or not (config.data.is_dir() and has_layout(config.data, layout)):
        return None
    images = load(
        config.data, model.size_px, Names(config.category or model.category), layout=layout, channels=model.channels
    )
    tests = [i for i, record in enumerate(images.records) if record.split == "test"]
    return images.subset(tests) if tests else None


def images_to_compare(model: Inspector, config: Config) -> tuple[np.ndarray, str]:
    """uint8 (n, h, w, 3), and what they are."""
    if config.data is None:
        rng = np.random.default_rng(0)
        coarse = rng.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
        rows, columns = (np.arange(side) * 8 // side for side in sides(model.size_px))
        return coarse[:, rows][:, :, columns], "generated patterns (images of yours with --data)"
    images = test_images(model, config) or normals_of(model, config)
    return images.batch(range(len(images))), f"images of {config.data}"


def build_engine(onnx: Path, out: Path, size_px: Size, takes_floats: bool) -> None:
    """Have trtexec make an engine of an ONNX file. Raises UserError without it, with the command for elsewhere."""
    command = trtexec_command(onnx, out, size_px, takes_floats)
    if not shutil.which(command[0]):
        raise UserError(
            f"there is no trtexec here, so no engine was made; {onnx} is ready for it. On the machine with the GPU: "
            f"{' '.join(command)}; or run {onnx} itself with onnxruntime-gpu's TensorrtExecutionProvider."
        )
    try:
        with whole_file(out) as unfinished:  # which trtexec would write over the old one
            subprocess.run(trtexec_command(onnx, unfinished, size_px, takes_floats), check=True)
    except subprocess.CalledProcessError as error:
        raise UserError(f"trtexec ended with exit code {error.returncode}: see what it says above.") from None


def trtexec_command(onnx: Path, out: Path, size_px: Size, takes_floats: bool) -> list[str]:
    height, width = sides(size_px)
    image = f"3x{height}x{width}" if takes_floats else f"{height}x{width}x3"
    batches = {"min": 1, "opt": DEFAULT_BATCH, "max": MAX_BATCH}
    shapes = [f"--{name}Shapes=images:{batch}x{image}" for name, batch in batches.items()]
    return ["trtexec", f"--onnx={onnx}", f"--saveEngine={out}", *shapes]
