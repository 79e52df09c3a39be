//! What Python says: answers, edits and settings. NamedTuples are read by position.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};

use super::metadata::metadata_from;
use super::types::Types;
use crate::machine::answers::Rules;
use crate::net::shared::Settings;
use crate::net::tls::server_config;
use crate::wire::fields::{grpc_status as grpc_status_fields, http_status, immediate_response};
use crate::wire::headers::Names;
use crate::wire::messages::{Answer, Edits, Observe, Pairs, Plan, Rename, Route};
use crate::wire::proto::{put_bytes, put_message, put_number};

/// Plans that were read already: handlers use the same few again and again.
///
/// Nothing of Python runs while the list is locked: it could come back here.
#[derive(Default)]
pub struct Plans {
    known: Mutex<Vec<(Py<PyAny>, Arc<Plan>)>>,
}

const MAX_PLANS: usize = 16;

impl Plans {
    fn read(&self, plan: &Bound<'_, PyAny>) -> PyResult<Arc<Plan>> {
        if let Some((_, read)) = self.known().iter().find(|(object, _)| object.is(plan)) {
            return Ok(read.clone());
        }
        let read = Arc::new(read_plan(plan.cast::<PyTuple>()?)?);
        // A rename is of one request; the rest is worth remembering.
        if read.rename.is_none() {
            let object = plan.clone().unbind();
            let mut known = self.known();
            let forgotten = (known.len() >= MAX_PLANS).then(|| known.remove(0));
            known.push((object, read.clone()));
            drop(known);
            drop(forgotten);
        }
        Ok(read)
    }

    fn known(&self) -> MutexGuard<'_, Vec<(Py<PyAny>, Arc<Plan>)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Read a `Route` or a `Reply`.
pub fn read_answer(answer: &Bound<'_, PyAny>, plans: &Plans) -> PyResult<Answer> {
    let py = answer.py();
    let types = Types::get(py)?;
    let class = answer.get_type();
    let fields = answer.cast::<PyTuple>()?;
    if class.is(&types.route) {
        read_route(fields, plans)
    } else if class.is(&types.reply) {
        Ok(Answer::Reply(read_reply(fields)?))
    } else {
        Err(PyTypeError::new_err(format!("an answer is a Route or a Reply, not a {}", class.name()?)))
    }
}

fn read_route(fields: &Bound<'_, PyTuple>, plans: &Plans) -> PyResult<Answer> {
    let mut splices = Vec::new();
    for splice in fields.get_item(3)?.try_iter()? {
        let (start, stop, new): (isize, isize, Bound<'_, PyBytes>) = splice?.extract()?;
        // A negative place is refused like one behind the end.
        let place = |at: isize| usize::try_from(at).unwrap_or(usize::MAX);
        splices.push((place(start), place(stop), Bytes::copy_from_slice(new.as_bytes())));
    }
    Ok(Answer::Route(Box::new(Route {
        edits: read_edits(fields.get_item(0)?.cast::<PyTuple>()?)?,
        metadata: metadata_from(&fields.get_item(1)?)?,
        plan: plans.read(&fields.get_item(2)?)?,
        splices,
    })))
}

/// An encoded `ImmediateResponse`.
fn read_reply(fields: &Bound<'_, PyTuple>) -> PyResult<Bytes> {
    let status: u64 = fields.get_item(0)?.extract()?;
    let body = fields.get_item(1)?;
    let headers = read_pairs(&fields.get_item(2)?)?;
    let grpc_status: Option<i32> = fields.get_item(3)?.extract()?;
    let details = fields.get_item(4)?;
    let mut out = Vec::with_capacity(headers.0.len() + 64);
    put_message(&mut out, immediate_response::STATUS, |inner| put_number(inner, http_status::CODE, status));
    if !headers.is_empty() {
        put_message(&mut out, immediate_response::HEADERS, |inner| inner.extend_from_slice(&headers.0));
    }
    let body = body.cast::<PyBytes>()?.as_bytes();
    if !body.is_empty() {
        put_bytes(&mut out, immediate_response::BODY, body);
    }
    if let Some(code) = grpc_status {
        let code = u64::try_from(code).map_err(|_| PyValueError::new_err("grpc_status is negative"))?;
        put_message(&mut out, immediate_response::GRPC_STATUS, |inner| {
            put_number(inner, grpc_status_fields::STATUS, code)
        });
    }
    let details = details.cast::<PyString>()?;
    if details.len()? > 0 {
        put_bytes(&mut out, immediate_response::DETAILS, details.to_str()?.as_bytes());
    }
    Ok(out.into())
}

/// Read an `Edits`.
pub fn read_edits(fields: &Bound<'_, PyTuple>) -> PyResult<Edits> {
    Ok(Edits { set: read_pairs(&fields.get_item(0)?)?, remove: read_names(&fields.get_item(1)?)? })
}

fn read_pairs(pairs: &Bound<'_, PyAny>) -> PyResult<Pairs> {
    if pairs.len()? == 0 {
        return Ok(Pairs::default());
    }
    let mut texts = Vec::new();
    for pair in pairs.try_iter()? {
        let pair = pair?.cast_into::<PyTuple>()?;
        texts.push((pair.get_item(0)?.cast_into::<PyString>()?, pair.get_item(1)?.cast_into::<PyString>()?));
    }
    let mut encoded = Vec::with_capacity(texts.len());
    for (name, value) in &texts {
        encoded.push((text_bytes(name)?, text_bytes(value)?));
    }
    let slices: Vec<(&[u8], &[u8])> = encoded.iter().map(|(name, value)| (&**name, &**value)).collect();
    Ok(Pairs::encode(&slices))
}

fn read_names(names: &Bound<'_, PyAny>) -> PyResult<Names> {
    if names.len()? == 0 {
        return Ok(Names::default());
    }
    let mut read = Vec::new();
    for name in names.try_iter()? {
        read.push(text_bytes(name?.cast::<PyString>()?)?.into_owned().into_boxed_slice());
    }
    Ok(Names::new(read))
}

/// UTF-8, surrogates that stand for odd bytes as these bytes.
fn text_bytes<'a>(text: &'a Bound<'_, PyString>) -> PyResult<Cow<'a, [u8]>> {
    if let Ok(text) = text.to_str() {
        return Ok(Cow::Borrowed(text.as_bytes()));
    }
    let encoded = text.call_method1("encode", ("utf-8", "surrogateescape"))?;
    Ok(Cow::Owned(encoded.cast::<PyBytes>()?.as_bytes().to_vec()))
}

fn read_plan(fields: &Bound<'_, PyTuple>) -> PyResult<Plan> {
    let observe = match fields.get_item(1)?.extract::<u8>()? {
        0 => Observe::Off,
        1 => Observe::First,
        _ => Observe::Every,
    };
    let rename = fields.get_item(3)?;
    let readers: Vec<String> = fields.get_item(4)?.extract()?;
    Ok(Plan {
        ask_headers: fields.get_item(0)?.is_truthy()?,
        observe,
        hold_end: fields.get_item(2)?.is_truthy()?,
        rename: if rename.is_none() { None } else { Some(read_rename(rename.cast::<PyTuple>()?)?) },
        readers: readers.into_iter().map(Into::into).collect(),
        streams: fields.get_item(5)?.is_truthy()?,
        skip: fields.get_item(6)?.is_truthy()?,
    })
}

/// Read a `Rename`.
pub fn read_rename(fields: &Bound<'_, PyTuple>) -> PyResult<Rename> {
    let points = |place: usize| -> PyResult<Vec<u32>> { code_points(fields.get_item(place)?.cast::<PyString>()?) };
    Ok(Rename { member: points(0)?, old: points(1)?, new: points(2)? })
}

fn code_points(text: &Bound<'_, PyString>) -> PyResult<Vec<u32>> {
    if let Ok(text) = text.to_str() {
        return Ok(text.chars().map(u32::from).collect());
    }
    let encoded = text.call_method1("encode", ("utf-32-le", "surrogatepass"))?;
    let (points, _) = encoded.cast::<PyBytes>()?.as_bytes().as_chunks::<4>();
    Ok(points.iter().map(|point| u32::from_le_bytes(*point)).collect())
}

/// Read a `handler.Settings`; the second result is `max_buffered_bytes`.
pub fn read_settings(settings: &Bound<'_, PyAny>) -> PyResult<(Settings, usize)> {
    let names = |name: &str| read_names(&settings.getattr(name)?);
    let response_set = read_pairs(&settings.getattr("response_set")?)?;
    let readers: Vec<String> = settings.getattr("request_readers")?.extract()?;
    let rules = Rules {
        request_strip: names("request_strip")?,
        response_strip: names("response_strip")?,
        response_names: Names::new(response_set.names().into_iter().map(Into::into).collect()),
        response_set,
        max_body_bytes: settings.getattr("max_body_bytes")?.extract()?,
        body_idle_s: settings.getattr("body_idle_s")?.extract()?,
        gap_bounds_s: settings.getattr("gap_bounds_s")?.extract()?,
        request_readers: readers.into_iter().map(Into::into).collect(),
    };
    let limit = |name: &str| -> PyResult<usize> {
        // Negative means none.
        Ok(usize::try_from(settings.getattr(name)?.extract::<i64>()?).unwrap_or(usize::MAX))
    };
    let tls = settings.getattr("tls")?;
    let read = Settings {
        rules: Arc::new(rules),
        max_receive_bytes: limit("max_receive_bytes")?,
        max_send_bytes: limit("max_send_bytes")?,
        tls: if tls.is_none() { None } else { Some(read_tls(&tls)?) },
    };
    Ok((read, settings.getattr("max_buffered_bytes")?.extract()?))
}

fn read_tls(tls: &Bound<'_, PyAny>) -> PyResult<Arc<rustls::ServerConfig>> {
    let certificate: Vec<u8> = tls.getattr("certificate")?.extract()?;
    let key: Vec<u8> = tls.getattr("key")?.extract()?;
    let min_version: Option<String> = tls.getattr("min_version")?.extract()?;
    let suites: Vec<String> = tls.getattr("cipher_suites")?.extract()?;
    server_config(&certificate, &key, min_version.as_deref(), &suites).map_err(PyValueError::new_err)
}
