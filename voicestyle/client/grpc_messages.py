"""The messages of TorchServe's inference.proto, from descriptors made here.

No generated file, which would be tied to one version of protobuf, and a pool of their own, for another library in the
process may bring TorchServe's. Left out: sequence ids and `status`, which only sequence batching uses; protobuf keeps
what it does not know.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE: Final = "org.pytorch.serve.grpc.inference"
SERVICE: Final = f"{PACKAGE}.InferenceAPIsService"

_Field = descriptor_pb2.FieldDescriptorProto
_Message = descriptor_pb2.DescriptorProto


def _text(number: int, name: str) -> _Field:
    return _Field(number=number, name=name, type=_Field.TYPE_STRING, label=_Field.LABEL_OPTIONAL)


def _bytes(number: int, name: str) -> _Field:
    return _Field(number=number, name=name, type=_Field.TYPE_BYTES, label=_Field.LABEL_OPTIONAL)


def _build() -> dict[str, Any]:
    # A map is a repeated message of keys and values.
    entry = _Message(name="InputEntry", field=[_text(1, "key"), _bytes(2, "value")])
    entry.options.map_entry = True
    entries = _Field(number=3, name="input", type=_Field.TYPE_MESSAGE, label=_Field.LABEL_REPEATED)
    entries.type_name = f".{PACKAGE}.PredictionsRequest.InputEntry"
    request = _Message(
        name="PredictionsRequest",
        field=[_text(1, "model_name"), _text(2, "model_version"), entries],
        nested_type=[entry],
    )
    response = _Message(name="PredictionResponse", field=[_bytes(1, "prediction")])
    health = _Message(name="TorchServeHealthResponse", field=[_text(1, "health")])
    file = descriptor_pb2.FileDescriptorProto(
        name="voicestyle/inference.proto",
        package=PACKAGE,
        syntax="proto3",
        message_type=[request, response, health],
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    names = [message.name for message in file.message_type]
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in names}


_classes: Final = _build()
PredictionsRequest: Final = _classes["PredictionsRequest"]
PredictionResponse: Final = _classes["PredictionResponse"]
TorchServeHealthResponse: Final = _classes["TorchServeHealthResponse"]
