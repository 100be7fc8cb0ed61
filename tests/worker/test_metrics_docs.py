"""docs/metrics.md lists every metric, and documents and alerts use no others."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families as parse

from tests.support.fake_torchserve import computing
from voicestyle.worker.metrics import OUTCOMES, Metrics

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs" / "metrics.md"
RULES = ROOT / "deploy" / "prometheus" / "alerts.yml"
STAGES = ("decode", "front_end", "voice_encoder", "first_latent", "queue", "optimise", "measure", "render", "encode")
SUPERVISOR = {"voicestyle_canaries_total", "voicestyle_ready"}  # checked by tests/serving/test_shutdown.py
ROW = re.compile(r"^\| `(voicestyle_\w+)` \| (\w+) \| ([\w, ]*) ?\| (.+) \|$", re.MULTILINE)


@pytest.fixture
def exposed(monkeypatch):
    """Type and labels of every metric, of a worker on a GPU that has counted everything."""
    import torch.cuda as cuda

    for name in ("memory_allocated", "memory_reserved", "max_memory_allocated"):
        monkeypatch.setattr(cuda, name, lambda _: 1)
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.describe("demo", "1", computing(device="cuda:0", step_seconds={1: 0.01}))
    metrics.received("http")
    timings = dict.fromkeys(STAGES, 1.0)
    face = SimpleNamespace(
        settings=SimpleNamespace(steps=0),
        similarity=1,
        first_similarity=0,
        audio_seconds=1,
        speech_seconds=1,
        timings=timings,
    )
    metrics.finished("http", face, 1.0)
    metrics.stepped(1, 1, 0.1)
    found = {}
    for family in parse(generate_latest(registry).decode()):
        if family.name.endswith("_created"):  # of prometheus_client in one process; files have none
            continue
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels if label != "le"}
        found[name] = (family.type, labels)
    return found


@pytest.fixture(scope="module")
def listed():
    rows = ROW.findall(DOCS.read_text(encoding="utf-8"))
    assert len({name for name, *_ in rows}) == len(rows)
    return {name: (kind, set(labels.replace(",", " ").split())) for name, kind, labels, _ in rows}


def test_every_metric_is_listed_with_type_and_labels(exposed, listed):
    assert listed == exposed


def test_label_values_are_explained():
    words = set(re.findall(r"`(\w+)`", DOCS.read_text(encoding="utf-8")))
    assert words >= {*OUTCOMES, *STAGES, "overloaded", "draining", "http", "grpc", "allocated", "reserved", "peak"}


@pytest.mark.parametrize("path", [DOCS, RULES], ids=lambda path: path.name)
def test_every_metric_in_a_query_exists(path, listed):
    series = set(listed)
    for name, (kind, _) in listed.items():
        if kind == "histogram":
            series |= {f"{name}{ending}" for ending in ("_bucket", "_sum", "_count")}
    asked = set(re.findall(r"\bvoicestyle_\w+\b", path.read_text(encoding="utf-8")))
    assert asked
    assert asked <= series | SUPERVISOR


def test_alerts_use_the_documented_queries():
    (group,) = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    documented = " ".join(DOCS.read_text(encoding="utf-8").split())
    asked = {rule["alert"]: " ".join(rule["expr"].split()) for rule in group["rules"]}
    assert len(asked) == 3
    for alert in ("VoiceStyleErrors", "VoiceStyleFull"):
        expression, _, _ = re.split(r" (>=?) (?=[\d.]+$)", asked[alert])
        assert expression in documented


def test_both_ports_are_scraped():
    jobs = yaml.safe_load((RULES.parent / "scrape.yml").read_text(encoding="utf-8"))["scrape_configs"]
    targets = [target for job in jobs for each in job["static_configs"] for target in each["targets"]]
    assert [target.rpartition(":")[2] for target in targets] == ["8083", "8082"]
