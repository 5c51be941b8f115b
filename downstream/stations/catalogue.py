"""Every kind of source, trigger and sink that a line's YAML can name, in one table each.

To add one: its options into the `config.py` of its folder, its class into a file there, and its entry here. Classes
stand as dotted paths and are imported when a line has one: what a camera needs, a folder does without.
"""

from dataclasses import dataclass
from typing import Any, Literal

from downstream.methods.catalogue import imported
from downstream.stations.contract import Surroundings
from downstream.stations.options import Options
from downstream.stations.sinks import config as sinks
from downstream.stations.sources import config as sources
from downstream.stations.triggers import config as triggers

_PACKAGE = "downstream.stations."
Family = Literal["source", "trigger", "sink"]


@dataclass(frozen=True)
class Entry:
    """One kind: its options, and its class, made as `Class(options, surroundings)`."""

    options: type[Options]
    path: str


SOURCES = {
    "folder": Entry(sources.Folder, _PACKAGE + "sources.folder.FolderSource"),
    "replay": Entry(sources.Replay, _PACKAGE + "sources.replay.ReplaySource"),
    "video": Entry(sources.Video, _PACKAGE + "sources.video.VideoSource"),
    "genicam": Entry(sources.GenICam, _PACKAGE + "sources.genicam.GenICamSource"),
    "push": Entry(sources.Push, _PACKAGE + "sources.push.PushSource"),
}
TRIGGERS = {
    "every": Entry(triggers.Every, _PACKAGE + "triggers.by_frame.Every"),
    "interval": Entry(triggers.Interval, _PACKAGE + "triggers.by_frame.Interval"),
    "motion": Entry(triggers.Motion, _PACKAGE + "triggers.motion.Motion"),
    "call": Entry(triggers.Call, _PACKAGE + "triggers.call.Call"),
    "mqtt": Entry(triggers.Mqtt, _PACKAGE + "triggers.mqtt.MqttTrigger"),
}
SINKS = {
    "stdout": Entry(sinks.Stdout, _PACKAGE + "sinks.stdout.StdoutSink"),
    "csv": Entry(sinks.Csv, _PACKAGE + "sinks.csv.CsvSink"),
    "images": Entry(sinks.Images, _PACKAGE + "sinks.images.ImagesSink"),
    "webhook": Entry(sinks.Webhook, _PACKAGE + "sinks.webhook.WebhookSink"),
    "database": Entry(sinks.Database, _PACKAGE + "sinks.database.DatabaseSink"),
    "mqtt": Entry(sinks.Mqtt, _PACKAGE + "sinks.mqtt.MqttSink"),
    "modbus": Entry(sinks.Modbus, _PACKAGE + "sinks.modbus.ModbusSink"),
    "opcua": Entry(sinks.OpcUa, _PACKAGE + "sinks.opcua.OpcUaSink"),
}
FAMILIES: dict[Family, dict[str, Entry]] = {"source": SOURCES, "trigger": TRIGGERS, "sink": SINKS}
_ENTRIES = {entry.options: entry for kinds in FAMILIES.values() for entry in kinds.values()}


def entry_of(options: Options) -> Entry:
    """The kind that `options` are of."""
    return _ENTRIES[type(options)]


def made(options: Options, surroundings: Surroundings) -> Any:
    """The part of a line that `options` are of."""
    return imported(entry_of(options).path)(options, surroundings)
