"""The Python blocks of docs/client.md, run in order against scripted servers."""

import re
from pathlib import Path

from tests.support.client_responses import FACE, IMAGE, RESULT, SMALL, STARTED, encode, error, lines, preview, progress
from tests.support.scripted_http import plain, stream

DOCS = Path(__file__).parent.parent.parent / "docs" / "client.md"
STORY = stream(lines(STARTED, progress(2), preview(2), progress(4), preview(4), RESULT))


def test_python_blocks_run(server, service, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "voice.wav").write_bytes(b"voice")
    server.script = [[plain(200, FACE)], [STORY], [STORY], [plain(422, error("no_speech"))]]
    service.script = [encode(FACE)] * 4
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), flags=re.DOTALL)
    names = {}
    for block in blocks:
        code = block.replace("http://127.0.0.1:8080", server.url).replace("127.0.0.1:7070", service.target)
        exec(compile(code, DOCS.name, "exec"), names)
    printed = capsys.readouterr().out
    assert "0.75 3 demo@1 r-1" in printed
    assert "2 of 4, similarity 0.500" in printed
    assert "[2, 2, 2, 2]" in printed
    assert "no_speech 422 the rule" in printed
    assert (tmp_path / "face.png").read_bytes() == IMAGE
    assert (tmp_path / "preview-2.jpg").read_bytes() == SMALL + b"\x02"
    assert server.script == service.script == []


def test_defaults_in_the_text_are_those_of_the_code():
    from inspect import signature

    from voicestyle.client import Client
    from voicestyle.client.retry import FIRST_DELAY, MAX_DELAY

    text = " ".join(DOCS.read_text(encoding="utf-8").split())
    defaults = {name: parameter.default for name, parameter in signature(Client).parameters.items()}
    assert (
        f"The defaults are {defaults['timeout']:g} s per attempt, {defaults['connect_timeout']:g} s to connect, "
        f"{defaults['deadline']:g} s in all and {defaults['max_retries']} retries." in text
    )
    assert f"between 0 and {FIRST_DELAY} · 2ⁿ⁻¹ seconds, {MAX_DELAY:g} s at most" in text
