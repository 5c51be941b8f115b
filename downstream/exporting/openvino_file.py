"""From an ONNX graph to OpenVINO's own form of it: NAME.xml, the graph with the header, and NAME.bin, its weights.

Two files cannot take the place of two others in one step: until the new graph is there, the old weights stay under a
hidden name, where readers find those that the graph goes with.
"""

from io import BytesIO
from pathlib import Path

from downstream.methods.exported import file_digest, go_together, kept_weights, named_in
from downstream.methods.openvino_runtime import SUFFIX, WEIGHTS_SUFFIX, imported_openvino, the_core
from pretrain.command import UserError
from pretrain.files import HEADER_KEY, NO_DIGEST, link_or_copy, scratch_folder, write_whole


def write_openvino(proto, header: str, path: Path) -> None:
    """Convert an onnx.ModelProto and write both files, with the header, which gets the digest of both. In fp32: halves
    would move scores by more than is allowed. Raises UserError where OpenVINO is missing or cannot convert it."""
    openvino = imported_openvino("to write OpenVINO's files")
    with scratch_folder(path.name) as place:
        try:
            # `openvino.convert_model` would report its use to OpenVINO's makers.
            model = the_core(openvino).read_model(BytesIO(proto.SerializeToString()))
        except Exception as error:  # its front ends' errors share no base
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"OpenVINO {openvino.__version__} cannot convert this model: {reason}") from None
        model.set_rt_info(header, HEADER_KEY)
        openvino.save_model(model, place / f"model{SUFFIX}", compress_to_fp16=False)
        graph, weights = ((place / f"model{suffix}").read_bytes() for suffix in (SUFFIX, WEIGHTS_SUFFIX))
    write_whole(path.with_suffix(WEIGHTS_SUFFIX), weights)
    write_whole(path, named_in(graph, NO_DIGEST, file_digest(graph + weights, NO_DIGEST)))


def take_place(new: Path, path: Path) -> None:
    """Give the files of `new`, which lie on the same disk, the names of `path`. Of a process killed at any step the old
    model or the new one is left."""
    weights, kept = path.with_suffix(WEIGHTS_SUFFIX), kept_weights(path)
    is_kept = path.is_file() and kept.is_file() and go_together(path.read_bytes(), kept.read_bytes())
    if weights.is_file() and not is_kept:  # else those beside the graph are of a writer that was killed
        kept.unlink(missing_ok=True)
        link_or_copy(weights, kept)
    new.with_suffix(WEIGHTS_SUFFIX).replace(weights)
    new.replace(path)
    kept.unlink(missing_ok=True)
