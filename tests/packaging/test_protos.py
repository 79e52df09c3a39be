"""``protos/`` is the one source of wire formats: what is generated is current, and says what the public packages say."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from envoy.service.ext_proc.v3 import external_processor_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto
from grpc_health.v1 import health_pb2

CHECKOUT = Path(__file__).parents[2]
GENERATE = CHECKOUT / "protos" / "generate.py"
GENERATED = ("epp/framework/protos", "native/src/wire/fields.rs")
KINDS = {number: name for name, number in FieldDescriptorProto.Type.items()}

generate: dict[str, Any] = runpy.run_path(str(GENERATE))


def test_what_is_generated_is_current(tmp_path: Path) -> None:
    subprocess.run([sys.executable, GENERATE, "--into", tmp_path], check=True, capture_output=True)
    made = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    assert len(made) > len(GENERATED)
    there = {path: (CHECKOUT / path).read_text() for path in made}
    assert there == made, "run `make protos`"


def ours(name: str) -> dict[str, DescriptorProto]:
    """Messages of a file of ours and of all that it imports, by full name; they are registered nowhere."""
    return dict(generate["messages"](generate["descriptors"](name)))


def public(module: Any) -> dict[str, Descriptor]:
    """The messages that a package describes, those that its files import too."""
    found: dict[str, Descriptor] = {}

    def walk(message: Descriptor) -> None:
        found[message.full_name] = message
        for nested in message.nested_types:
            walk(nested)

    def file(descriptor: Any, seen: set[str]) -> None:
        if descriptor.name in seen:
            return
        seen.add(descriptor.name)
        for message in descriptor.message_types_by_name.values():
            walk(message)
        for dependency in descriptor.dependencies:
            file(dependency, seen)

    file(module.DESCRIPTOR, set())
    return found


def said(field: FieldDescriptorProto) -> tuple[object, ...]:
    """What must be alike: number, type, whether it repeats, and the type that it names."""
    repeats = field.label == FieldDescriptorProto.LABEL_REPEATED
    return field.number, KINDS[field.type], repeats, field.type_name.removeprefix(".")


def says(field: FieldDescriptor) -> tuple[object, ...]:
    """The same of a registered one."""
    named = field.message_type or field.enum_type
    return field.number, KINDS[field.type], field.is_repeated, named.full_name if named is not None else ""


PAIRS = [
    pytest.param("envoy/service/ext_proc/v3/external_processor.proto", external_processor_pb2, id="Envoy's, by xds-protos"),
    pytest.param("grpc/health/v1/health.proto", health_pb2, id="health, by grpcio-health-checking"),
]


@pytest.mark.parametrize(("name", "module"), PAIRS)
def test_our_subset_says_what_the_public_package_says(name: str, module: Any) -> None:
    theirs = public(module)
    compared = 0
    for full_name, message in ours(name).items():
        for field in message.field:
            assert said(field) == says(theirs[full_name].fields_by_name[field.name]), f"{full_name}.{field.name}"
            compared += 1
        for oneof in message.oneof_decl:
            if not oneof.name.startswith("_"):
                assert oneof.name in theirs[full_name].oneofs_by_name, f"{full_name}.{oneof.name}"
        for enum in message.enum_type:
            values: EnumDescriptor = theirs[full_name].enum_types_by_name[enum.name]
            assert {v.name: v.number for v in enum.value}.items() <= {v.name: v.number for v in values.values}.items()
    assert compared > 1


@pytest.mark.parametrize(("name", "module"), PAIRS)
def test_our_services_have_the_public_methods(name: str, module: Any) -> None:
    (file,) = [file for file in generate["descriptors"](name).file if file.name == name]
    (service,) = file.service
    methods = module.DESCRIPTOR.services_by_name[service.name].methods_by_name
    for method in service.method:
        theirs = methods[method.name]
        assert method.input_type.removeprefix(".") == theirs.input_type.full_name
        assert method.output_type.removeprefix(".") == theirs.output_type.full_name
        assert (method.client_streaming, method.server_streaming) == (theirs.client_streaming, theirs.server_streaming)


def test_envoys_messages_are_not_generated_a_second_time() -> None:
    """Two descriptions of a message in one process break whoever loads the second."""
    for path in (CHECKOUT / "epp").rglob("*_pb2.py"):
        assert "envoy" not in path.read_text(), path
