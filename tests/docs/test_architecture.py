"""The stations of docs/architecture.md exist in the code."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
STATIONS = re.findall(r"^\| \d+ \| (\w+) \| `([\w/.]+)`, `(\w+)` \|", PAGE, re.MULTILINE)


def test_the_path_of_a_request_has_ten_distinct_stations():
    assert len({(file, function) for _, file, function in STATIONS}) == len(STATIONS) == 10


def test_every_station_is_a_function_of_its_file():
    for _, file, function in STATIONS:
        nodes = ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8")))
        assert function in {node.name for node in nodes if isinstance(node, ast.FunctionDef)}, file


def test_every_named_file_exists():
    for file in re.findall(r"`((?:voicestyle|handlers|docs)/[\w/.]+)`", PAGE):
        assert (ROOT / file).is_file(), file
