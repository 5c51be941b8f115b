"""Models as torch.export writes them: read only after a look at everything in the file that torch would believe.

`torch.export.load` is not safe on its own, as its documentation says: it unpickles tensors that the file calls pickled,
sample inputs and foreign objects, with `weights_only` off; it evaluates text as symbolic sizes and guards, makes Python
of names, calls any operator that is registered, and loads compiled libraries. A file of ours needs none of it. So every
part of the archive is compared with what ours consist of, raw numbers and a list of well-known operators; whatever else
is in it is refused; and torch is given a copy of the parts that were looked at, not the file.
"""

import io
import json
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from pretrain.command import UserError

EXTRA = "extra/heldout.json"
PARTS = re.compile(
    r"(archive_format|archive_version|byteorder|\.data/version|\.data/serialization_id|models/model\.json"
    r"|data/weights/(model_weights_config\.json|weight_\d+)|data/constants/(model_constants_config\.json|tensor_\d+)"
    r"|data/sample_inputs/model\.pt|extra/heldout\.json)"
)
CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
# fmt: off
OPERATORS = frozenset((
    "_assert_tensor_metadata", "adaptive_avg_pool2d", "add", "add_", "amin", "avg_pool2d", "cat", "conv2d",
    "contiguous", "div", "dropout", "flatten", "gather", "gelu", "gt", "index", "index_select", "layer_norm", "le",
    "linear", "matmul", "max_pool2d", "mean", "mul", "neg", "numpy_T", "permute", "relu", "relu_", "select", "slice",
    "sqrt", "square", "sub", "sum", "sym_size", "t", "to", "topk", "transpose", "unflatten", "unsqueeze",
    "upsample_bilinear2d", "view",
))
# fmt: on
OPERATOR = re.compile(r"torch\.ops\.aten\.(\w+)\.\w+")
BUILTIN = re.compile(r"_operator\.(mul|add|sub|floordiv|getitem)")
SIZE = re.compile(r"(Symbol\('s\d+'(, (positive|integer)=True)*\)|Integer\(-?\d+\)|(Mul|Add)\(|[), ])+")
NAME = re.compile(r"[\w.+]{0,200}")
CONTAINERS = (None, "builtins.tuple", "builtins.list", "builtins.dict")
EMPTY = (None, "null", "[]")


def write_pt2(judge: torch.nn.Module, example: torch.Tensor, header: str, path: Path) -> None:
    """Write a module and its header; the batch is free. Sample inputs and where the code lay are left out."""
    batch = {0: torch.export.Dim("batch", min=1)}
    program = torch.export.export(judge, (example,), dynamic_shapes=(batch,))
    for node in program.graph.nodes:
        for name in ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node"):
            node.meta.pop(name, None)
    program._example_inputs = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of weights with channels innermost, which are saved as they are
        torch.export.save(program, path, extra_files={Path(EXTRA).name: header})


def open_pt2(path: Path) -> tuple[str | None, Callable[[np.ndarray], list[np.ndarray]]]:
    """The header, and what runs the graph on a batch. Raises UserError for a file that holds anything unexpected."""
    try:
        parts = _parts(path)
        _check(parts)
    except _Unexpected as found:
        raise UserError(
            f"{path} is not run, since it holds what no file of heldout's does ({found}), and torch could be made to "
            "run it: export the model again, and use .onnx for files from others."
        ) from None
    except (zipfile.BadZipFile, KeyError, ValueError, OSError, EOFError) as error:
        raise UserError(f"{path} is damaged, cut off or no file of torch.export ({error}): export it again.") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = torch.export.load(_packed(parts)).module()
    except Exception as error:  # torch's errors here have no common base
        written = json.loads(parts["models/model.json"]).get("torch_version")
        raise UserError(
            f"{path} was written by torch {written} and cannot be read by {torch.__version__}: {str(error)[:160]}; "
            "export it with the torch that runs it."
        ) from None

    @torch.inference_mode()
    def run(batch: np.ndarray) -> list[np.ndarray]:
        return [answer.numpy() for answer in module(torch.from_numpy(batch))]

    return parts.get(EXTRA, b"").decode(), run


class _Unexpected(Exception):
    """What was found that no file of ours holds."""


def _parts(path: Path) -> dict[str, bytes]:
    """The parts of the archive by their names, without the folder that all of them are in."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        folder = names[0].split("/")[0] + "/" if names else ""
        parts = {}
        for name in names:
            part = name.removeprefix(folder)
            if not PARTS.fullmatch(part) or part in parts:
                raise _Unexpected(f"the part {name[:80]!r}")
            parts[part] = archive.read(name)  # its checksum is compared
    if missing := {"models/model.json", *CONFIGS} - set(parts):
        raise KeyError(f"without {min(missing)}")
    return parts


def _check(parts: dict[str, bytes]) -> None:
    """Raises _Unexpected for anything that torch would unpickle, evaluate, or look up by a name."""
    if parts.get("data/sample_inputs/model.pt"):
        raise _Unexpected("sample inputs, which are pickled")
    for config in CONFIGS:
        for name, one in json.loads(parts[config])["config"].items():
            if one.get("use_pickle") is not False or not re.fullmatch(r"(weight|tensor)_\d+", one["path_name"]):
                raise _Unexpected(f"{name[:80]!r}, which is pickled")
    model = json.loads(parts["models/model.json"])
    if model.pop("guards_code", []):
        raise _Unexpected("code of guards")
    for key, text in _texts(model):
        if not _is_expected(key, text):
            raise _Unexpected(f"{key} {text[:80]!r}")


def _texts(value: object, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text of a JSON value with the key that it stands under, keys included."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield "key", name
            yield from _texts(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner, key)
    elif isinstance(value, str):
        yield key, value


def _is_expected(key: str, text: str) -> bool:
    if key == "target":  # of a node: what is called
        operator = OPERATOR.fullmatch(text)
        return bool(BUILTIN.fullmatch(text)) or bool(operator) and operator[1] in OPERATORS
    if key == "expr_str":
        return bool(SIZE.fullmatch(text))
    if key in ("in_spec", "out_spec"):
        return all(_is_plain(spec) for spec in json.loads(text)[1:])
    return bool(NAME.fullmatch(text))


def _is_plain(spec: dict) -> bool:
    """Whether a description of arguments is made of tuples, lists and dictionaries alone."""
    known = set(spec) <= {"type", "context", "children_spec"}
    plain = spec["type"] in CONTAINERS and spec["context"] in EMPTY
    return known and plain and all(map(_is_plain, spec["children_spec"]))


def _packed(parts: dict[str, bytes]) -> io.BytesIO:
    """An archive of exactly these parts."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name, data in parts.items():
            archive.writestr(f"model/{name}", data)
    packed.seek(0)
    return packed
