"""The IR reader on a small network, valid and damaged."""

import hashlib
import zipfile
from pathlib import Path

import numpy as np
import pytest

from cmpc2.errors import CheckpointError
from voicestyle.generators import from_wheel
from voicestyle.generators.openvino_ir import Graph, parse_graph, read_graphs

WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)
BIAS = np.array([0.5, -0.5], dtype=np.float16)
AXES = np.array([1, -1], dtype=np.int64)
BLOB = WEIGHT.tobytes() + BIAS.tobytes() + AXES.tobytes()
# A layer comes before its inputs, and its edges are not in port order. Neither may affect the result.
XML = """<?xml version="1.0"?>
<net name="tiny" version="10">
  <layers>
    <layer id="4" name="matmul" type="MatMul"/>
    <layer id="0" name="x" type="Parameter"><data shape="1,3" element_type="f32"/></layer>
    <layer id="1" name="weight" type="Const"><data element_type="f32" shape="2, 3" offset="0" size="24"/></layer>
    <layer id="2" name="bias" type="Const"><data element_type="f16" shape="2" offset="24" size="4"/></layer>
    <layer id="3" name="axes" type="Const"><data element_type="i64" shape="2" offset="28" size="16"/></layer>
    <layer id="5" name="sum" type="Add"/>
  </layers>
  <edges>
    <edge from-layer="1" from-port="0" to-layer="4" to-port="1"/>
    <edge from-layer="0" from-port="0" to-layer="4" to-port="0"/>
    <edge from-layer="4" from-port="2" to-layer="5" to-port="0"/>
    <edge from-layer="2" from-port="0" to-layer="5" to-port="1"/>
  </edges>
</net>"""


def tiny() -> Graph:
    return parse_graph(XML.encode(), BLOB)


def make_wheel(path: Path, blob: bytes = BLOB) -> str:
    """Write the wheel and return its SHA-256."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("package/tiny.xml", XML)
        archive.writestr("package/tiny.bin", blob)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_constants_have_their_shape_type_and_values() -> None:
    graph = tiny()
    np.testing.assert_array_equal(graph.named_constant("weight"), WEIGHT)
    np.testing.assert_array_equal(graph.named_constant("bias"), BIAS.astype(np.float32))
    assert graph.named_constant("bias").dtype == np.float32
    axes = graph.named("axes").constant
    assert axes is not None
    np.testing.assert_array_equal(axes, AXES)


def test_edges_are_followed_in_both_directions() -> None:
    graph = tiny()
    matmul = graph.fed_by(graph.named("weight"), "MatMul")
    assert [graph.layers[i].name for i in matmul.inputs] == ["x", "weight"]
    addition = graph.fed_by(matmul, "Add")
    assert graph.feeding(addition, "MatMul") == matmul
    np.testing.assert_array_equal(graph.constant(addition), BIAS.astype(np.float32))


def test_missing_layers_and_constants_are_named() -> None:
    graph = tiny()
    with pytest.raises(CheckpointError, match="one layer named 'gain', found 0"):
        graph.named("gain")
    with pytest.raises(CheckpointError, match=r"'sum' to be fed by one PReLU, found \['Const', 'MatMul'\]"):
        graph.feeding(graph.named("sum"), "PReLU")
    with pytest.raises(CheckpointError, match="'sum' to be feeding one PReLU"):
        graph.fed_by(graph.named("sum"), "PReLU")
    with pytest.raises(CheckpointError, match="'axes' must be a floating-point constant"):
        graph.named_constant("axes")
    with pytest.raises(CheckpointError, match="'x' must be a floating-point constant"):
        graph.named_constant("x")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("</net>", "", "must be XML"),
        ('version="10"', 'version="11"', "must be <net> version 10, got <net> version 11"),
        ('element_type="f16"', 'element_type="u1"', "'bias' must be one of f32, f16, i64, i32, got 'u1'"),
        ('shape="2, 3"', 'shape="2, 4"', r"'weight' of shape \[2, 4\] and type f32 cannot have 24 bytes"),
        ('shape="2, 3"', 'shape="2, x"', "'weight' has invalid attributes"),
        ('offset="28"', 'offset="29"', "'axes' is at bytes 29 … 45 of a file of 44"),
        ('offset="28"', 'offset="-8"', "'axes' is at bytes -8 … 8 of a file of 44"),
        ('from-layer="2"', 'from-layer="9"', r"not in the graph: \['9'\]"),
        ('from-layer="2"', 'from="2"', "has no 'from-layer'"),
    ],
)
def test_invalid_graphs_are_rejected(old: str, new: str, message: str) -> None:
    assert old in XML
    with pytest.raises(CheckpointError, match=message):
        parse_graph(XML.replace(old, new).encode(), BLOB)


def test_a_wheel_with_the_expected_hash_is_read(tmp_path: Path) -> None:
    wheel = tmp_path / "package-1-py3-none-any.whl"
    (graph,) = read_graphs(wheel, ["package/tiny"], make_wheel(wheel))
    np.testing.assert_array_equal(graph.named_constant("weight"), WEIGHT)


def test_a_wheel_with_another_hash_is_rejected(tmp_path: Path) -> None:
    wheel = tmp_path / "package-1-py3-none-any.whl"
    expected = make_wheel(wheel)
    received = make_wheel(wheel, blob=BLOB[:-1] + b"!")
    with pytest.raises(CheckpointError, match=f"must have SHA-256 {expected}, got {received}"):
        read_graphs(wheel, ["package/tiny"], expected)


def test_invalid_archives_are_rejected(tmp_path: Path) -> None:
    wheel = tmp_path / "package-1-py3-none-any.whl"
    digest = make_wheel(wheel)
    with pytest.raises(CheckpointError, match="must contain the networks"):
        read_graphs(wheel, ["package/other"], digest)
    wheel.write_bytes(b"no archive")
    with pytest.raises(CheckpointError, match="must contain the networks"):
        read_graphs(wheel, ["package/tiny"], hashlib.sha256(b"no archive").hexdigest())


def test_a_truncated_wheel_is_rejected_by_its_hash(tmp_path: Path) -> None:
    wheel = tmp_path / "random_face.whl"
    make_wheel(wheel)
    wheel.write_bytes(wheel.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match=r"random_face\.whl must have SHA-256 e5d10e2b"):
        from_wheel(wheel)
    with pytest.raises(FileNotFoundError):
        from_wheel(tmp_path / "absent.whl")
