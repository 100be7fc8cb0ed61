"""report.html: complete, self-contained, and safe for names that look like HTML."""

import base64
import hashlib
import io
import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from PIL import Image

from tests.support.fake_bank_tools import fake_toolbox, write_photographs
from voicestyle.bank_builder import BankOptions, build_bank, rewrite_report
from voicestyle.bank_builder.merge import kind_of
from voicestyle.bank_builder.report import ASSETS, CURVE_POINTS, PAGE, curve, finite
from voicestyle.bank_builder.shard import THUMBNAIL_SIZE

HOSTILE = ("<img src=x onerror=alert(1)>.png", "</script><script>alert(2)</script>.png", "\" onload='alert(3)'.png")


class Page(HTMLParser):
    """Elements with their attributes, the text of scripts, and the text outside of them."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.scripts, self.text, self.open_script = [], [], "", None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag == "script":
            self.open_script = dict(attributes)

    def handle_endtag(self, tag):
        if tag == "script":
            self.open_script = None

    def handle_data(self, data):
        if self.open_script is None:
            self.text += data
        else:
            self.scripts.append((self.open_script, data))

    def json_of(self, **wanted):
        return [json.loads(data) for attributes, data in self.scripts if wanted.items() <= attributes.items()]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    photographs = write_photographs(folder / "photographs", PAGE + 5)
    for name in HOSTILE:
        path = photographs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photographs / "000.png", path)
    (photographs / "broken.jpg").write_bytes(b"nothing")
    return build_bank(BankOptions((photographs,), folder / "bank", shard_size=30), toolbox=fake_toolbox())


@pytest.fixture(scope="module")
def page(built):
    return Page(built.report.read_text(encoding="utf-8"))


def test_every_photograph_has_a_row_and_details(page):
    (rows,) = page.json_of(id="rows")
    chunks = page.json_of(**{"class": "details"})
    assert [len(chunk) for chunk in chunks] == [PAGE, len(rows) - PAGE]
    details = [each for chunk in chunks for each in chunk]
    by_key = {row["key"]: (row, each) for row, each in zip(rows, details, strict=True)}
    assert [row["key"] for row in rows] == sorted(by_key)
    kept, shown = by_key["000.png"]
    assert (kept["state"], kept["reason"]) == ("kept", None)
    assert 20 <= kept["psnr"] <= 30
    assert shown["figures"]["faces"] == 1
    assert shown["losses"]["pixels"] == [1.0, 0.5, 0.3333, 0.25, 0.2]
    rejected, shown = by_key["003.png"]
    assert rejected["reason"] == "brightness must be at least 50, received 4.5"
    assert rejected["kind"] == "brightness must be at least 50, received …"
    assert (shown["inversion"], shown["losses"]) == (None, None)
    assert by_key["broken.jpg"][1]["aligned"] is None
    for part in ("aligned", "inversion"):
        image = Image.open(io.BytesIO(base64.b64decode(by_key["000.png"][1][part])))
        assert (image.format, image.size) == ("WEBP", (THUMBNAIL_SIZE, THUMBNAIL_SIZE))


def test_totals_loss_detector_and_gates_are_said(page, built):
    text = " ".join(page.text.split())
    for said in ("fake loss", "fake detector", "max yaw 25.0", "min score of the detector", "sharpness"):
        assert said in text
    photographs = built.description.photographs
    assert f"{photographs.kept} kept" in text
    assert f"{sum(photographs.rejected.values())} rejected" in text
    kinds = [attributes["data-kind"] for tag, attributes in page.elements if "data-kind" in attributes]
    assert kinds == ["brightness must be at least 50, received …", "must be an intact image"]


def test_hostile_names_are_data_and_nothing_else(page):
    (rows,) = page.json_of(id="rows")
    assert set(HOSTILE) <= {row["key"] for row in rows}
    assert not [element for element in page.elements if element[0] == "img"]
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    # The rows, the details and the report's own script.
    assert len([tag for tag, _ in page.elements if tag == "script"]) == len(page.scripts) == 4
    assert "innerHTML" not in (ASSETS / "report.js").read_text()


def test_nothing_is_loaded_and_only_the_own_script_may_run(page, built):
    content = built.report.read_text(encoding="utf-8")
    addresses = set(re.findall(r"https?://[^\s\"'<>]+", content))
    assert addresses == {"http://www.w3.org/2000/svg"}  # the name of a namespace
    loaded = [
        value
        for _, attributes in page.elements
        for name, value in attributes.items()
        if name in ("src", "href", "action")
    ]
    assert loaded == ["data:,"]
    (policy,) = (attributes["content"] for tag, attributes in page.elements if "http-equiv" in attributes)
    script = next(data for attributes, data in page.scripts if not attributes)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy
    assert "url(" not in (ASSETS / "report.css").read_text()


def test_the_script_knows_the_page_size_and_the_elements(page):
    script = (ASSETS / "report.js").read_text()
    assert f"const PAGE = {PAGE};" in script
    present = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    assert set(re.findall(r'byId\("(\w+)"\)', script)) <= present


def test_the_script_is_valid(tmp_path):
    node = shutil.which("node")
    assert node, "the script of the report is checked by node (Node.js), which must be on PATH"
    done = subprocess.run([node, "--check", ASSETS / "report.js"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_it_is_written_again_in_the_same_bytes(built):
    before = built.report.read_bytes()
    built.report.unlink()
    assert rewrite_report(built.report.parent).report.read_bytes() == before


def test_videos_without_a_latent_are_listed(tmp_path):
    write_photographs(tmp_path / "photographs" / "Ann", 2)
    write_photographs(tmp_path / "frames" / "Ann" / "1.6" / "v1", 2)
    (tmp_path / "training.csv").write_text("VGGFace1 ID,video_id\nAnn,v1\nAnn,<v2>\n")
    options = BankOptions(
        (tmp_path / "photographs",), tmp_path / "bank", csv=tmp_path / "training.csv", frames=tmp_path / "frames"
    )
    page = Page(build_bank(options, toolbox=fake_toolbox(videos=True)).report.read_text())
    text = " ".join(page.text.split())
    assert "1 of 2 videos with a latent" in text
    assert "Ann/1.6/<v2>there must be frames of the video, got none" in text
    assert "1 chosen by no video" in text
    (rows,) = page.json_of(id="rows")
    assert sorted(row["state"] for row in rows) == ["kept", "unchosen"]


def test_curves_are_short_and_keep_their_ends():
    values = [1 / (step + 1) for step in range(300)]
    drawn = curve(values)
    assert len(drawn) == CURVE_POINTS
    assert (drawn[0], drawn[-1]) == (1.0, 0.003333)
    assert curve([1.0]) == [1.0]
    assert curve([]) == []
    assert curve([math.nan, 1.0]) == [None, 1.0]


def test_numbers_that_json_does_not_have_become_null():
    assert [finite(value, 1) for value in (1.26, math.inf, math.nan, None)] == [1.3, None, None, None]


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("yaw +31°, must be within ±25°", "yaw …°, must be within ±25°"),
        ("2 faces found, must be 1", "… faces found, must be 1"),
        ("no face found, must be 1", "no face found, must be 1"),
        (
            "a PNG must have at most 50 megapixels, received 20000×10000, which is 200",
            "a PNG must have at most 50 megapixels, received …, which is …",
        ),
        ("must be readable: error 5", "must be readable: error …"),
        ("12 bytes are missing", "… bytes are missing"),
    ],
)
def test_reasons_of_one_kind_differ_in_their_numbers(reason, kind):
    assert kind_of(reason) == kind
