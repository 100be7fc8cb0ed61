"""Java's heap follows from the requests that an archive lets TorchServe hold."""

import json
import logging
import re
import zipfile
from types import SimpleNamespace

import psutil
import pytest

from voicestyle.errors import ServerError
from voicestyle.serving import TorchServe, heap
from voicestyle.serving.heap import java_arguments, machine_memory, most_requests
from voicestyle.serving.server import CONFIG, read_properties

GIB = 2**30
BODY = int(read_properties(CONFIG)["max_request_size"])


@pytest.fixture
def archive(tmp_path):
    """Write an archive with a model config."""

    def write(config):
        path = tmp_path / "voicestyle.mar"
        with zipfile.ZipFile(path, "w") as opened:
            opened.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": {"configFile": "config.yaml"}}))
            opened.writestr("config.yaml", config)
        return path

    return write


@pytest.fixture
def memory(monkeypatch):
    """Set the memory of this machine."""
    monkeypatch.setattr(heap, "CONTAINER_LIMITS", ())
    return lambda size: monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=size))


def arguments(path, vmargs="-Xmx2g -XX:+ExitOnOutOfMemoryError"):
    return java_arguments({"vmargs": vmargs, "max_request_size": str(BODY)}, path)


def test_a_cpu_archive_changes_nothing(archive, memory, caplog):
    memory(3 * GIB)
    assert arguments(archive("maxWorkers: 1\nbatchSize: 32\njobQueueSize: 32")) == "-Xmx2g -XX:+ExitOnOutOfMemoryError"
    assert not caplog.records


def test_the_heap_holds_all_bodies_with_room(archive, memory, caplog):
    memory(64 * GIB)
    given = arguments(archive("maxWorkers: 1\nbatchSize: 104\njobQueueSize: 32"))
    (size,) = re.findall(r"-Xmx(\d+)m", given)
    assert given == f"-XX:+ExitOnOutOfMemoryError -Xmx{size}m"
    assert 0.59 * int(size) * 2**20 < 136 * BODY <= 0.6 * int(size) * 2**20
    assert not caplog.records


@pytest.mark.parametrize("vmargs", ["", "-Xmx64m", "-Xmx65536k", "-Xmx67108864"])
def test_a_heap_that_is_absent_or_smaller_is_replaced(archive, memory, vmargs):
    memory(64 * GIB)
    assert re.fullmatch(r"-Xmx1814m", arguments(archive("maxWorkers: 1\nbatchSize: 32\njobQueueSize: 32"), vmargs))


def test_a_larger_heap_is_kept(archive, memory):
    memory(64 * GIB)
    assert arguments(archive("maxWorkers: 1\nbatchSize: 104\njobQueueSize: 32"), "-Xmx8G") == "-Xmx8G"


@pytest.mark.parametrize(("total", "expected"), [(3 * GIB, "-Xmx2g"), (6 * GIB, "-Xmx3072m")])
def test_the_heap_gets_at_most_half_of_the_memory_and_a_warning_says_so(archive, memory, caplog, total, expected):
    memory(total)
    with caplog.at_level(logging.WARNING):
        assert expected in arguments(archive("maxWorkers: 1\nbatchSize: 104\njobQueueSize: 32")).split()
    (record,) = caplog.records
    assert "136 requests" in record.getMessage()
    assert "need a Java heap of 3854 MiB" in record.getMessage()
    assert "device: cpu" in record.getMessage()


@pytest.mark.parametrize(("text", "expected"), [("3221225472\n", 3 * GIB), ("max\n", 64 * GIB), ("9" * 18, 64 * GIB)])
def test_the_limit_of_a_container_counts(tmp_path, monkeypatch, memory, text, expected):
    memory(64 * GIB)
    limit = tmp_path / "memory.max"
    limit.write_text(text)
    monkeypatch.setattr(heap, "CONTAINER_LIMITS", (tmp_path / "none", limit))
    assert machine_memory() == expected


@pytest.mark.parametrize("config", ["batchSize: 32", "[]", "maxWorkers: 1\nbatchSize: a\njobQueueSize: 1", "{"])
def test_an_archive_without_the_numbers_is_an_error(archive, config):
    with pytest.raises(ServerError, match=r"voicestyle\.mar must be an archive that `voicestyle archive` wrote"):
        arguments(archive(config))


def test_each_worker_has_a_batch(archive):
    assert most_requests(archive("maxWorkers: 4\nbatchSize: 104\njobQueueSize: 32")) == 4 * 104 + 32


def test_a_file_that_is_no_archive_is_an_error(tmp_path):
    path = tmp_path / "voicestyle.mar"
    path.write_bytes(b"something else")
    with pytest.raises(ServerError, match="must be an archive that `voicestyle archive` wrote"), TorchServe(path):
        pass


def test_java_gets_the_heap(tiny_archive, memory, monkeypatch):
    """The archive of the default configuration, up to the start of java."""
    memory(64 * GIB)
    commands = []

    def started(command, **_):
        commands.append(command)
        raise ServerError("far enough")

    monkeypatch.setattr("voicestyle.serving.server.subprocess.Popen", started)
    with pytest.raises(ServerError, match="far enough"), TorchServe(tiny_archive):
        pass
    assert [each for each in commands[0] if each.startswith("-Xmx")] == ["-Xmx3854m"]
