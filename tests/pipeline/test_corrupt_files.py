"""Files of a bundle that have the hash of the manifest but invalid content: always one BundleError."""

import io
import json
import shutil

import faiss
import numpy as np
import pytest
import torch

from voicestyle.bundle import Bundle, sha256
from voicestyle.errors import BundleError
from voicestyle.manifest import FILES
from voicestyle.torchscript import save


def npy(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


@pytest.fixture
def load_with(tiny_bundle, tmp_path):
    """`load_with(name, content)`: load a copy of the bundle in which a file and its hash are replaced."""

    def load(name, content):
        folder = shutil.copytree(tiny_bundle, tmp_path / "copy")
        (folder / name).write_bytes(content)
        manifest = json.loads((folder / "bundle.json").read_text())
        manifest["files"][name] = sha256(folder / name)
        (folder / "bundle.json").write_text(json.dumps(manifest))
        return Bundle.load(folder)

    return load


@pytest.mark.parametrize("content", [b"", b"not a file of a bundle"])
@pytest.mark.parametrize("name", FILES)
def test_any_other_content_is_a_bundle_error(load_with, name, content):
    with pytest.raises(BundleError, match=rf"cannot load .*{name}: \S") as caught:
        load_with(name, content)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_a_bundle_error(load_with, tiny_bundle, name):
    content = (tiny_bundle / name).read_bytes()
    with pytest.raises(BundleError, match=f"cannot load .*{name}"):
        load_with(name, content[: len(content) // 2])


LATENTS = np.zeros((40, 512), np.float32)
ASSIGNMENTS = np.arange(40, dtype=np.int32) % 5


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        (
            "latent_bank.npy",
            LATENTS.astype(np.float64),
            r"latents .* must be float32 with 2 or 3 axes .*got float64 \[40, 512",
        ),
        ("latent_bank.npy", LATENTS.astype(np.int32), "got int32"),
        ("latent_bank.npy", LATENTS.astype(">f4"), "got >f4"),
        ("latent_bank.npy", LATENTS[0], r"got float32 \[512\]"),
        ("latent_bank.npy", np.float32(1), r"got float32 \[\]"),
        (
            "latent_bank.npy",
            LATENTS[:, :8],
            r"latents in latent_bank.npy must be \(512,\) as in bundle.json, got \(8,\)",
        ),
        ("assignments.npy", ASSIGNMENTS[:39], r"assignments .* must be int32 .*one row per latent .*got int32 \[39\]"),
        ("assignments.npy", ASSIGNMENTS.astype(np.float32), "got float32"),
        ("assignments.npy", ASSIGNMENTS[:, None], r"got int32 \[40, 1\]"),
        ("assignments.npy", ASSIGNMENTS - 1, "every prototype must have an image"),
        ("assignments.npy", np.append(ASSIGNMENTS[:39], np.int32(-1)), r"must be in 0 … 4, got -1"),
    ],
)
def test_arrays_of_another_form_are_bundle_errors(load_with, name, array, message):
    with pytest.raises(BundleError, match=message):
        load_with(name, npy(array))


@pytest.mark.parametrize("name", ["latent_bank.npy", "assignments.npy"])
def test_pickled_arrays_are_not_loaded(load_with, name):
    with pytest.raises(BundleError, match=f"cannot load .*{name}.*object"):
        load_with(name, npy(np.array([{}] * 40, dtype=object), allow_pickle=True))


def test_a_network_of_another_kind_is_a_bundle_error(load_with, tmp_path):
    save(torch.nn.Linear(2, 2).eval(), tmp_path / "other.pt")
    with pytest.raises(BundleError, match=r"cannot load .*generator\.pt"):
        load_with("generator.pt", (tmp_path / "other.pt").read_bytes())


def test_an_index_of_another_size_is_a_bundle_error(load_with, tmp_path):
    faiss.write_index(faiss.IndexFlatL2(8), str(tmp_path / "empty.faiss"))
    with pytest.raises(BundleError, match=r"prototypes of prototypes\.faiss must be 5 as in bundle\.json, got 0"):
        load_with("prototypes.faiss", (tmp_path / "empty.faiss").read_bytes())
