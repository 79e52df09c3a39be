//! Dynamic metadata: `google.protobuf.Struct` ↔ Python's dicts.

use bytes::Bytes;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyMapping, PyString, PyTuple};

use crate::wire::fields::{list_value, metadata, struct_, value as kind};
use crate::wire::messages::Metadata;
use crate::wire::proto::{Malformed, Reader, Value, entry, put_bytes, put_head, put_message, put_varint, text};

/// Nesting of values, both ways; deeper ones are refused.
const MAX_DEPTH: usize = 64;

/// A `Struct` of this mapping; None if it is empty.
pub fn metadata_from(mapping: &Bound<'_, PyAny>) -> PyResult<Metadata> {
    if mapping.is_none() || mapping.len()? == 0 {
        return Ok(None);
    }
    let mut out = Vec::with_capacity(128);
    put_struct(&mut out, mapping, 0)?;
    Ok(Some(Bytes::from(out)))
}

fn put_struct(out: &mut Vec<u8>, mapping: &Bound<'_, PyAny>, depth: usize) -> PyResult<()> {
    if depth > MAX_DEPTH {
        return Err(PyValueError::new_err("metadata is nested too deeply"));
    }
    if let Ok(dict) = mapping.cast::<PyDict>() {
        for (name, value) in dict {
            put_field(out, &name, &value, depth)?;
        }
        return Ok(());
    }
    for item in mapping.cast::<PyMapping>()?.items()? {
        let (name, value): (Bound<'_, PyAny>, Bound<'_, PyAny>) = item.extract()?;
        put_field(out, &name, &value, depth)?;
    }
    Ok(())
}

fn put_field(out: &mut Vec<u8>, name: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>, depth: usize) -> PyResult<()> {
    let name = name.cast::<PyString>()?;
    let name = name.to_str()?;
    let mut result = Ok(());
    put_message(out, struct_::FIELDS, |record| {
        put_bytes(record, entry::KEY, name.as_bytes());
        put_message(record, entry::VALUE, |inner| result = put_value(inner, value, depth));
    });
    result
}

/// A `Value`; each kind is written even if it is the default, as members of a oneof are.
fn put_value(out: &mut Vec<u8>, value: &Bound<'_, PyAny>, depth: usize) -> PyResult<()> {
    if let Ok(text) = value.cast::<PyString>() {
        put_bytes(out, kind::STRING_VALUE, text.to_str()?.as_bytes());
    } else if value.is_none() {
        out.extend_from_slice(&[(kind::NULL_VALUE << 3) as u8, 0]);
    } else if let Ok(flag) = value.cast::<PyBool>() {
        out.extend_from_slice(&[(kind::BOOL_VALUE << 3) as u8, u8::from(flag.is_true())]);
    } else if value.is_instance_of::<PyFloat>() || value.is_instance_of::<PyInt>() {
        out.push((kind::NUMBER_VALUE << 3) as u8 | 1);
        out.extend_from_slice(&value.extract::<f64>()?.to_le_bytes());
    } else if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
        let mut list = Vec::new();
        for item in value.try_iter()? {
            let item = item?;
            let mut encoded = Vec::new();
            put_value(&mut encoded, &item, depth + 1)?;
            put_bytes(&mut list, list_value::VALUES, &encoded);
        }
        put_bytes(out, kind::LIST_VALUE, &list);
    } else if value.cast::<PyMapping>().is_ok() {
        let mut inner = Vec::new();
        put_struct(&mut inner, value, depth + 1)?;
        put_head(out, kind::STRUCT_VALUE, 0);
        out.pop();
        put_varint(out, inner.len() as u64);
        out.extend_from_slice(&inner);
    } else {
        let type_name = value.get_type().name()?;
        return Err(PyTypeError::new_err(format!("metadata cannot hold a value of type {type_name}")));
    }
    Ok(())
}

/// The namespaces of an encoded `envoy.config.core.v3.Metadata`. What is malformed inside is left out.
pub fn context_to_dict<'py>(py: Python<'py>, context: &[u8]) -> PyResult<Bound<'py, PyDict>> {
    let out = PyDict::new(py);
    let mut fields = Reader::new(context);
    while let Ok(Some(field)) = fields.field() {
        if let (metadata::FILTER_METADATA, Value::Bytes(entry)) = field
            && let Ok((namespace, content)) = read_entry(entry)
        {
            out.set_item(namespace, struct_to_dict(py, content, 0)?)?;
        }
    }
    Ok(out)
}

fn struct_to_dict<'py>(py: Python<'py>, data: &[u8], depth: usize) -> PyResult<Bound<'py, PyDict>> {
    let out = PyDict::new(py);
    let mut fields = Reader::new(data);
    while let Ok(Some(field)) = fields.field() {
        if let (struct_::FIELDS, Value::Bytes(entry)) = field
            && let Ok((name, value)) = read_entry(entry)
        {
            out.set_item(name, value_to_object(py, value, depth)?)?;
        }
    }
    Ok(out)
}

fn value_to_object<'py>(py: Python<'py>, data: &[u8], depth: usize) -> PyResult<Bound<'py, PyAny>> {
    let mut found = py.None().into_bound(py);
    if depth > MAX_DEPTH {
        return Ok(found);
    }
    let mut fields = Reader::new(data);
    while let Ok(Some(field)) = fields.field() {
        found = match field {
            (kind::NUMBER_VALUE, Value::Fixed64(bits)) => PyFloat::new(py, f64::from_bits(bits)).into_any(),
            (kind::STRING_VALUE, Value::Bytes(data)) => PyString::new(py, text(data).unwrap_or_default()).into_any(),
            (kind::BOOL_VALUE, Value::Varint(number)) => PyBool::new(py, number != 0).to_owned().into_any(),
            (kind::STRUCT_VALUE, Value::Bytes(inner)) => struct_to_dict(py, inner, depth + 1)?.into_any(),
            (kind::LIST_VALUE, Value::Bytes(inner)) => list_to_object(py, inner, depth + 1)?.into_any(),
            _ => py.None().into_bound(py),
        };
    }
    Ok(found)
}

fn list_to_object<'py>(py: Python<'py>, data: &[u8], depth: usize) -> PyResult<Bound<'py, PyList>> {
    let out = PyList::empty(py);
    let mut fields = Reader::new(data);
    while let Ok(Some(field)) = fields.field() {
        if let (list_value::VALUES, Value::Bytes(value)) = field {
            out.append(value_to_object(py, value, depth)?)?;
        }
    }
    Ok(out)
}

/// Key and value of a map's entry.
fn read_entry(record: &[u8]) -> Result<(&str, &[u8]), Malformed> {
    let (mut name, mut content): (&[u8], &[u8]) = (&[], &[]);
    let mut fields = Reader::new(record);
    while let Some(field) = fields.field()? {
        match field {
            (entry::KEY, Value::Bytes(data)) => name = data,
            (entry::VALUE, Value::Bytes(data)) => content = data,
            _ => {}
        }
    }
    Ok((text(name)?, content))
}
