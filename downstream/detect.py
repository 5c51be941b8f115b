"""Is this product defective, and where: fit any method of the project to good images, then run it.

    python downstream/detect.py fit --data FOLDER_OF_GOOD_IMAGES --out models/bolt
    python downstream/detect.py run IMAGE_OR_FOLDER --model models/bolt
    python downstream/detect.py run --data MANIFEST_OR_URL --model models/bolt --address local    # many, in parts
    python downstream/detect.py triage FOLDER    # which of these images are odd, before anything is fitted
    python downstream/detect.py learn --model models/bolt --feedback FOLDER    # from what operators say of its verdicts
    python downstream/detect.py promote --model models/bolt    # put what it learned into use; roll-back undoes it

`fit` needs nothing but good images of one product: a plain folder, or a category in MVTec AD's layout. `run` prints a
table, writes JSON lines and images, and ends with exit code 0 if nothing is defective, 1 if something is, 2 after a
mistake, 3 if nothing is defective but some images could not be inspected.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from downstream.inspection.config import Fit, Run, Triage
    from downstream.learning.config import Learn, Promote, RollBack, Versions
    from pretrain.command import start_commands

    start_commands(
        {
            "fit": ("downstream.inspection.fitting:fit", Fit),
            "run": ("downstream.detect:run", Run),
            "triage": ("downstream.inspection.triage:triage", Triage),
            "learn": ("downstream.learning.learn:main", Learn),
            "promote": ("downstream.learning.switch:promote", Promote),
            "roll-back": ("downstream.learning.switch:roll_back", RollBack),
            "versions": ("downstream.learning.switch:versions", Versions),
        }
    )

# `fit` has a file of its own, as it needs torch: an exported model is run without, and without its 1.5 s.
from pathlib import Path

from downstream.inspection.config import Run
from downstream.inspection.images import records_to_inspect
from downstream.inspection.inspector import FILE, Inspector
from downstream.inspection.interchange import FORMATS
from downstream.inspection.results import DetectResults, exit_code
from downstream.methods.catalogue import imported
from pretrain.command import UserError
from pretrain.data.images import Problem, check_names
from pretrain.progress import Progress

MODELS = Path("models")


def run(config: Run) -> int:
    """Inspect every image; the exit code says how it went."""
    if config.data is not None:  # stands above this file, and needs an extra
        return imported("downstream.inspection.manifest.run.run")(config, config.model or sole_model(MODELS))
    if config.address is not None:
        raise UserError("--address is for images that are named by --data: a manifest, a folder, an archive or a URL.")
    check_names(config.format, FORMATS, "format of results")
    model = Inspector.load(config.model or sole_model(MODELS), config.device, config.runtime)
    if config.threshold is not None:
        model.decide_at(config.threshold)
    if not getattr(model.method, "takes_pixels", False):  # an exported one, which runs without torch
        keep_within = imported("downstream.inspection.memory.keep_within")
        keep_within(
            model.method, model.size_px, config.memory_gb, print, type(model.method).__name__,
            aligns=model.alignment is not None, by_rule=model.rule is not None,
        )  # fmt: skip
    elif config.memory_gb is not None:
        raise UserError("--memory-gb is for a model's folder: an exported file takes what its graph does.")
    records, problems = records_to_inspect(config.images, model.category, config.layout, model.metadata, model.channels)
    is_any_defective = False
    with (
        DetectResults(Path(config.out), config.overlays, config.maps, model.outlines, config.format) as results,
        Progress("inspecting", len(records)) as progress,
    ):
        for problem in problems:
            progress.print(f"{problem.path}: {problem.reason}")
        problems = [each for each in problems if each.is_untested]
        for record, result in zip(records, model.inspect([record.path for record in records]), strict=True):
            if isinstance(result, Problem):
                problems.append(result)
                progress.print(f"{result.path}: {result.reason}")
            else:
                results.add(result, record)
                is_any_defective |= result.is_defective
            progress.advance()
    results.print_summary(model, problems)
    return exit_code(is_any_defective, bool(problems))


def sole_model(folder: Path) -> Path:
    """The model in a folder of models that holds one alone. Raises UserError for none and for several."""
    models = sorted(path.parent for path in folder.glob(f"*/{FILE}"))
    if len(models) == 1:
        return models[0]
    if not models:
        raise UserError(f"there is no model in {folder}/: name one by --model, or make one by detect.py fit.")
    raise UserError(f"{folder}/ holds {', '.join(path.name for path in models)}: name one of them by --model.")
