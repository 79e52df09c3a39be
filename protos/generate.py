"""Makes everything that is generated from the .proto files of this folder: Python classes, and field numbers for Rust.

``make protos`` writes them; ``python protos/generate.py --into DIR`` writes the same files below another folder, for the test
that compares them. Needs ``grpcio-tools`` (extra ``test``).
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import grpc_tools
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorSet
from grpc_tools import protoc

PROTOS = Path(__file__).resolve().parent
CHECKOUT = PROTOS.parent
PACKAGE = "epp/framework/protos"
"""Where the Python classes are. Protobuf knows the files under this folder's name too, so that no other's is like it."""
CLASSES = ("vllm_engine.proto", "vertexai.proto", "tokenizer.proto")
"""What Python reads with generated classes. Envoy's messages and health come with packages of their own (xds-protos,
grpcio-health-checking), and must not be registered twice."""
NUMBERS = ("envoy/service/ext_proc/v3/external_processor.proto", "grpc/health/v1/health.proto")
"""What Rust reads and writes by hand, by generated field numbers."""
RUST = "native/src/wire/fields.rs"
WELL_KNOWN = Path(grpc_tools.__file__).parent / "_proto"


def main() -> int:
    """Write all generated files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--into", type=Path, default=CHECKOUT, help="folder below which they are written; default: the checkout"
    )
    into: Path = parser.parse_args().into
    (into / PACKAGE).mkdir(parents=True, exist_ok=True)
    _run(f"-I{PACKAGE}={PROTOS}", f"--python_out={into}", f"--pyi_out={into}", *(f"{PACKAGE}/{name}" for name in CLASSES))
    rust = into / RUST
    rust.parent.mkdir(parents=True, exist_ok=True)
    rust.write_text(rust_numbers(descriptors(*NUMBERS)))
    return 0


def descriptors(*names: str) -> FileDescriptorSet:
    """The descriptors of these files and of all that they import, registered nowhere."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "set"
        _run(f"-I{PROTOS}", f"-I{WELL_KNOWN}", "--include_imports", f"--descriptor_set_out={path}", *names)
        return FileDescriptorSet.FromString(path.read_bytes())


def messages(files: FileDescriptorSet) -> Iterator[tuple[str, DescriptorProto]]:
    """All messages with their full names, nested ones too."""

    def walk(prefix: str, message: DescriptorProto) -> Iterator[tuple[str, DescriptorProto]]:
        name = f"{prefix}.{message.name}"
        yield name, message
        for nested in message.nested_type:
            yield from walk(name, nested)

    for file in files.file:
        for message in file.message_type:
            yield from walk(file.package, message)


def rust_numbers(files: FileDescriptorSet) -> str:
    """A module of field numbers for each message, and of values for each enum."""
    blocks = [
        "//! Field numbers and enum values of the messages that are read and written by hand.",
        "//!",
        "//! Generated from `protos/` by `make protos`; not to be edited.",
        "",
    ]
    for name, message in messages(files):
        if message.field and not message.options.map_entry:
            blocks += [f"/// `{name}`.", f"pub mod {_snake(message.name)} {{"]
            blocks += [f"    pub const {field.name.upper()}: u32 = {field.number};" for field in message.field]
            blocks += ["}", ""]
        for enum in message.enum_type:
            blocks += _enum(f"{name}.{enum.name}", enum.name, [(value.name, value.number) for value in enum.value])
    return "\n".join(blocks)


def _enum(full: str, name: str, values: list[tuple[str, int]]) -> list[str]:
    lines = [f"/// Values of `{full}`.", f"pub mod {_snake(name)} {{"]
    return [*lines, *(f"    pub const {value}: u64 = {number};" for value, number in values), "}", ""]


def _snake(name: str) -> str:
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    return f"{snake}_" if snake == "struct" else snake


def _run(*arguments: str) -> None:
    if status := protoc.main(["protoc", *arguments]):
        raise SystemExit(f"protoc failed with status {status}")


if __name__ == "__main__":
    sys.exit(main())
