"""The database's tables, as the newest of `migrations/versions` leaves them: test_migrating.py compares the two."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)

# SQLite counts by itself in columns of this very type alone.
ID_TYPE = BigInteger().with_variant(Integer, "sqlite")

# The very words of a question: by others SQLite does not see that a partial index has what is asked for.
KEPT, KEPT_SQLITE = text("is_kept"), text("is_kept = 1")

TABLES = MetaData()
RESULTS = Table(
    "results", TABLES,
    Column("id", ID_TYPE, primary_key=True, autoincrement=True),
    Column("created", String(24), nullable=False),  # UTC, 2026-01-31T23:59:59.123Z: sorts as text
    Column("model", Text, nullable=False),
    Column("category", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("digest", String(64), nullable=False, index=True),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("score", Float(53), nullable=False),
    Column("threshold", Float(53), nullable=False),
    Column("is_defective", Boolean, nullable=False),
    Column("confidence", Float(53), nullable=False),
    Column("regions", Text, nullable=False),  # JSON
    Column("milliseconds", Float(53), nullable=False),
    Column("is_kept", Boolean, nullable=False),
    Column("model_version", String(64), nullable=False, server_default=""),  # empty: judged before results said it
    Column("camera", String(100), nullable=False, server_default=""),  # what was wrong with it, joined by ", "
    Column("distance", Float(53), nullable=True),  # of the image as a whole to the nearest good one, where it is known
    Column("disagreement", Float(53), nullable=True),  # of two statistics of the model, where it has two
    # Each has all that a question asks, so that none reads the rows: days and their shares, pages and counts of the
    # history, scores whose drift is looked for, and images that wait for a person's word.
    Index("ix_results_day", "created", "model", "is_defective"),
    Index("ix_results_page", "model", "id", "is_defective"),
    Index("ix_results_scores", "model", "model_version", "camera", "id", "score", "distance"),
    Index("ix_results_kept", "model", "model_version", "digest", "id", sqlite_where=KEPT_SQLITE, postgresql_where=KEPT),
)  # fmt: skip
IMAGES = Table(
    "images", TABLES,
    Column("id", ID_TYPE, primary_key=True, autoincrement=True),
    Column("digest", String(64), nullable=False, unique=True),
    Column("file", Text, nullable=False),
    Column("source", Text, nullable=False),  # what made the vector, as JSON; empty: nothing did
    Column("vector", LargeBinary, nullable=False),  # float32
)  # fmt: skip
SETTINGS = Table(
    "settings", TABLES,
    Column("name", String(300), primary_key=True),
    Column("value", Text, nullable=False),
)  # fmt: skip
FEEDBACK = Table(
    "feedback", TABLES,
    Column("id", ID_TYPE, primary_key=True, autoincrement=True),
    Column("result_id", BigInteger, nullable=False, index=True),
    Column("verdict", String(16), nullable=False),
    Column("created", String(24), nullable=False),
    Column("by", Text, nullable=False),
    Column("marks", Text, nullable=False),  # JSON
    Column("note", Text, nullable=False),
    Column("takes_back", BigInteger, nullable=True, unique=True),  # the id of another record
)  # fmt: skip
AUDIT = Table(
    "audit", TABLES,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("created", String(24), nullable=False),
    Column("by", Text, nullable=False),
    Column("action", String(32), nullable=False),
    Column("subject", Text, nullable=False),
    Column("before", Text, nullable=False),  # JSON
    Column("after", Text, nullable=False),  # JSON
    Column("previous", String(64), nullable=False),
    Column("digest", String(64), nullable=False),
    Index("ix_audit_subject", "subject", "number"),
)  # fmt: skip
CAMERA_REFERENCES = Table(
    "camera_references", TABLES,
    Column("id", ID_TYPE, primary_key=True, autoincrement=True),
    Column("model", Text, nullable=False),
    Column("model_version", String(64), nullable=False, server_default=""),
    Column("look", Text, nullable=False),  # JSON
    Index("ix_camera_references_version", "model", "model_version", "id"),
)  # fmt: skip
