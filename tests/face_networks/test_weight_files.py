"""Weight files: TensorFlow.js manifests, TorchScript archives, VGG-16, LPIPS and IR-SE50."""

import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from voicestyle.errors import CheckpointError
from voicestyle.face_networks import IrSe50, fetch_lpips_linear, read_lpips_linear, read_vgg16, weight_files
from voicestyle.face_networks.tfjs_weights import read_weights, to_convolution, to_depthwise
from voicestyle.face_networks.torchscript_weights import is_torchscript, read_torchscript_weights

SHAPES = {f"lin{number}.model.1.weight": (1, width, 1, 1) for number, width in enumerate((64, 128, 256, 512, 512))}


def test_weights_of_tensorflow_js_are_read_and_restored():
    entries = [
        {"name": "plain", "shape": [2, 1], "dtype": "float32"},
        {
            "name": "small",
            "shape": [3],
            "dtype": "float32",
            "quantization": {"dtype": "uint8", "scale": 0.5, "min": -1},
        },
        {"name": "axes", "shape": [], "dtype": "int32"},
    ]
    binary = np.array([1.5, -2], "<f4").tobytes() + bytes([0, 2, 255]) + np.array(7, "<i4").tobytes()
    weights = read_weights([{"weights": entries[:1]}, {"weights": entries[1:]}], binary)
    assert weights["plain"].tolist() == [[1.5], [-2]]
    assert weights["small"].tolist() == [-1, 0, 126.5]
    assert weights["small"].dtype == torch.float32
    assert weights["axes"].item() == 7
    with pytest.raises(CheckpointError, match=r"must have axes \[\] at byte 11 of 14"):
        read_weights([{"weights": entries}], binary[:-1])
    with pytest.raises(CheckpointError, match="must have 15 bytes, as their manifest says, got 16"):
        read_weights([{"weights": entries}], binary + b"\0")


def test_filters_are_brought_into_the_order_of_torch():
    filters = torch.rand(3, 3, 4, 5)
    assert to_convolution(filters)[2, 1, 0, 2] == filters[0, 2, 1, 2]
    depthwise = torch.rand(3, 3, 4, 1)
    assert to_depthwise(depthwise)[3, 0, 1, 2] == depthwise[1, 2, 3, 0]


class Model(nn.Module):
    """Parameters, buffers, lists and shared weights, as a traced model has them."""

    def __init__(self):
        super().__init__()
        self.visual = nn.Sequential(nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4))
        self.again = self.visual[0]
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.sizes = [1, 2]

    def forward(self, x):
        return self.again(x) + self.visual(x) * self.scale + self.sizes[0]


@pytest.fixture
def archive(tmp_path):
    torch.manual_seed(0)
    model = Model().eval()
    torch.jit.save(torch.jit.trace(model, torch.rand(1, 3, 4, 4)).half(), tmp_path / "model.pt")
    return tmp_path / "model.pt", model.half().state_dict()


def test_a_torchscript_archive_is_read_without_torch_jit(archive, monkeypatch):
    path, expected = archive
    monkeypatch.delattr(torch.jit, "load")
    assert is_torchscript(path)
    weights = read_torchscript_weights(path)
    assert {"visual.0.weight", "visual.1.running_var", "scale"} <= weights.keys()
    for name in weights.keys() & expected.keys():
        assert torch.equal(weights[name], expected[name])
    assert {name for name in expected if not name.startswith("again")} <= weights.keys()


def test_other_files_are_no_torchscript_archives(tmp_path, archive):
    torch.save({}, tmp_path / "plain.pt")
    (tmp_path / "text").write_text("no zip file")
    # The central directory begins with this signature; the end of the file, by which zip files are known, is intact.
    (tmp_path / "damaged.pt").write_bytes(archive[0].read_bytes().replace(b"PK\x01\x02", b"PK\x00\x00"))
    for name in ("plain.pt", "text", "damaged.pt"):
        assert not is_torchscript(tmp_path / name)


# _rebuild_tensor_v2(storage 0, offset 0, size (9999999,), stride (0,))
HUGE = (
    b"ctorch._utils\n_rebuild_tensor_v2\n((S'storage'\nctorch\nHalfStorage\nS'0'\nS'cpu'\nI1\ntQ"
    b"I0\n(I9999999\nt(I0\nttR."
)


def repacked(path, changed, compression=zipfile.ZIP_STORED):
    """The archive with the content of some files replaced, by the end of their name."""
    target = path.with_name("changed.pt")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w", compression) as copy:
        for name in source.namelist():
            content = next((value for end, value in changed.items() if name.endswith(end)), source.read(name))
            copy.writestr(name, content)
    return target


@pytest.mark.parametrize(
    ("changed", "compression", "reason"),
    [
        ({"/data.pkl": b"cos\nsystem\n(S'false'\ntR."}, zipfile.ZIP_STORED, "os.system is not allowed"),
        ({"/data.pkl": b"cbuiltins\neval\n(S'1'\ntR."}, zipfile.ZIP_STORED, "builtins.eval is not allowed"),
        ({"/data.pkl": b"(S'module'\ntQ."}, zipfile.ZIP_STORED, "must be a TorchScript archive"),
        ({"/data.pkl": b"(S'module'\nctorch\nHalfStorage\nS'0'\nS'cpu'\nI1\ntQ."}, zipfile.ZIP_STORED, "not allowed"),
        ({"/data.pkl": HUGE}, zipfile.ZIP_STORED, "a tensor must not be larger than its storage"),
        ({"/data.pkl": b""}, zipfile.ZIP_STORED, "must be a TorchScript archive of plain tensors"),
        ({"/data/0": b"\0"}, zipfile.ZIP_STORED, "must be a TorchScript archive of plain tensors"),
        ({}, zipfile.ZIP_DEFLATED, "must be stored uncompressed"),
    ],
)
def test_damaged_or_hostile_archives_are_refused(archive, changed, compression, reason):
    with pytest.raises(CheckpointError, match=reason):
        read_torchscript_weights(repacked(archive[0], changed, compression))


def test_an_archive_must_have_one_module_tree(archive, tmp_path):
    with zipfile.ZipFile(tmp_path / "empty.pt", "w") as empty:
        empty.writestr("model/code/x.py", "")
    with pytest.raises(CheckpointError, match="it must contain one data.pkl, got 0"):
        read_torchscript_weights(tmp_path / "empty.pt")


def test_of_vgg_only_the_convolutions_are_read(tmp_path):
    weights = {"features.0.weight": torch.rand(64, 3, 3, 3), "classifier.0.weight": torch.rand(2, 2)}
    torch.save(weights, tmp_path / "vgg16.pth")
    assert list(read_vgg16(tmp_path / "vgg16.pth")) == ["features.0.weight"]
    torch.save({"model": weights}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="must be torchvision's state dict of VGG-16"):
        read_vgg16(tmp_path / "other.pth")
    torch.save({"features.0.weight": [1]}, tmp_path / "list.pth")
    with pytest.raises(
        CheckpointError, match="must be a state dict, which has tensors only; features.0.weight is none"
    ):
        read_vgg16(tmp_path / "list.pth")


def test_the_linear_layers_of_lpips_are_read_in_order(tmp_path):
    torch.save({name: torch.rand(shape) for name, shape in SHAPES.items()}, tmp_path / "vgg.pth")
    assert [weight.shape for weight in read_lpips_linear(tmp_path / "vgg.pth")] == list(SHAPES.values())
    torch.save({"lin0.model.1.weight": torch.rand(1, 64, 1, 1)}, tmp_path / "short.pth")
    with pytest.raises(CheckpointError, match="must contain the linear layers of LPIPS for VGG-16. missing: lin1"):
        read_lpips_linear(tmp_path / "short.pth")


def test_the_layers_of_the_wheel_are_those_of_lpips(cache):
    linear = fetch_lpips_linear(cache)
    assert [weight.shape for weight in linear] == list(SHAPES.values())
    assert all((weight >= 0).all() for weight in linear)  # the paper constrains them


def test_pip_that_fails_gives_its_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(weight_files, "LPIPS_WHEEL_SHA256", "0" * 64)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(CheckpointError, match="pip could not download lpips==0.1.4: .*ERROR"):
        fetch_lpips_linear(tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.long
def test_an_identity_file_may_lack_counters_of_batch_norms(tmp_path):
    weights = IrSe50().state_dict()
    torch.save({k: v for k, v in weights.items() if not k.endswith("num_batches_tracked")}, tmp_path / "old.pth")
    assert IrSe50.read(tmp_path / "old.pth").name == "ArcFace IR-SE50 (old.pth)"
    torch.save({k: v for k, v in weights.items() if k != "input_layer.0.weight"}, tmp_path / "bad.pth")
    with pytest.raises(CheckpointError, match=r"bad.pth must be the state dict of an IR-SE50. missing: input_layer.0"):
        IrSe50.read(tmp_path / "bad.pth")
