"""The tables of docs/service.md are those of the code."""

from pathlib import Path

from voicestyle.error_codes import ERROR_CODES
from voicestyle.options import OPTIONS

DOCS = (Path(__file__).parents[2] / "docs" / "service.md").read_text(encoding="utf-8")


def table_after(header):
    lines = DOCS[DOCS.index(header) :].splitlines()[2:]
    return lines[: next(i for i, line in enumerate(lines) if not line.startswith("|"))]


def test_the_options_table_is_that_of_the_code():
    assert table_after("| option | header |") == [
        f"| `{name}` | `X-VoiceStyle-{name.capitalize()}` | {option.rule} | {option.default} | {option.help} |"
        for name, option in OPTIONS.items()
    ]


def test_the_error_table_is_that_of_the_code():
    assert table_after("| status | code |") == [
        f"| {code.status.value} | `{code.name}` | {'yes' if code.retryable else 'no'} | {code.meaning} |"
        for code in ERROR_CODES.values()
    ]
