"""Results as the service's database has them, for its tests."""

from downstream.service.database import StoredResult


def result(number: int = 0, **changes: object) -> StoredResult:
    usual = StoredResult(
        f"2026-01-{number % 28 + 1:02d}T10:00:00.000Z", "bolt", "bolts", f"image {number}.png", f"{number:064x}",
        64, 48, 0.1 + number, 2.5, number > 2, 0.9,
        [{"area_px": 3, "box": [0, 1, 2, 3], "peak": 1.5, "center": [1, 1]}], 12.5, False, "a version",
    )  # fmt: skip
    return usual._replace(**changes)
