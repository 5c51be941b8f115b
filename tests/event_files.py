"""TensorBoard's event files of a run, read back."""

from pathlib import Path


def events(folder: Path):
    """What was written into a run's folder, or a part of it; by TensorBoard's own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder)).Reload()


def tracked(run: Path) -> dict[str, list[str]]:
    """The names of a run's scalars and images, in alphabetical order."""
    tags = events(run / "tensorboard").Tags()
    return {name: sorted(tags[name]) for name in ("scalars", "images")}
