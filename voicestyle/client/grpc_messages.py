"""The messages of TorchServe's inference.proto, built from descriptors at import time.

A generated file would be tied to one version of protobuf. The descriptors have a pool of their own, because another
library in the process may load TorchServe's. Sequence ids and `status` are left out: only sequence batching uses them,
and protobuf ignores unknown fields.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE: Final = "org.pytorch.serve.grpc.inference"
SERVICE: Final = f"{PACKAGE}.InferenceAPIsService"

_Field = descriptor_pb2.FieldDescriptorProto
_Message = descriptor_pb2.DescriptorProto


def _field(number: int, name: str, kind: _Field.Type.ValueType, label: _Field.Label.ValueType) -> _Field:
    return _Field(number=number, name=name, type=kind, label=label)


def _build() -> dict[str, Any]:
    string, binary, one = _Field.TYPE_STRING, _Field.TYPE_BYTES, _Field.LABEL_OPTIONAL
    # A map is a repeated message of keys and values.
    entry = _Message(name="InputEntry", field=[_field(1, "key", string, one), _field(2, "value", binary, one)])
    entry.options.map_entry = True
    inputs = _field(3, "input", _Field.TYPE_MESSAGE, _Field.LABEL_REPEATED)
    inputs.type_name = f".{PACKAGE}.PredictionsRequest.InputEntry"
    request = _Message(
        name="PredictionsRequest",
        field=[_field(1, "model_name", string, one), _field(2, "model_version", string, one), inputs],
        nested_type=[entry],
    )
    response = _Message(name="PredictionResponse", field=[_field(1, "prediction", binary, one)])
    health = _Message(name="TorchServeHealthResponse", field=[_field(1, "health", string, one)])
    messages = (request, response, health)
    pool = descriptor_pool.DescriptorPool()
    file = descriptor_pb2.FileDescriptorProto(name="voicestyle/inference.proto", package=PACKAGE, syntax="proto3")
    file.message_type.extend(messages)
    pool.Add(file)
    names = [message.name for message in messages]
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in names}


_classes: Final = _build()
PredictionsRequest: Final = _classes["PredictionsRequest"]
PredictionResponse: Final = _classes["PredictionResponse"]
TorchServeHealthResponse: Final = _classes["TorchServeHealthResponse"]
