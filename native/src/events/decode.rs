//! From a message's payload to events, in every layout of vLLM and SGLang. Twin of `plugins/kvcache/events.py`.

use super::msgpack::Value;

/// The tier of events that name no medium.
pub const GPU: &str = "gpu";
/// Larger payloads are not decoded.
pub const MAX_PAYLOAD_BYTES: usize = 16 * 1024 * 1024;
const LAST_SGLANG_FIELD: usize = 6;

const STORED: [&str; 11] = [
    "type",
    "block_hashes",
    "parent_block_hash",
    "token_ids",
    "block_size",
    "lora_id",
    "medium",
    "lora_name",
    "extra_keys",
    "group_idx",
    "kv_cache_spec_kind",
];
const REMOVED: [&str; 4] = ["type", "block_hashes", "medium", "group_idx"];

/// Of a block, in the engine's order; None = it cannot be told apart, nor can those behind it.
pub type Features = Vec<String>;

#[derive(Clone, Debug)]
pub struct Stored {
    pub hashes: Vec<u64>,
    pub parent: Option<u64>,
    /// Four bytes each, little-endian.
    pub tokens: Vec<u8>,
    pub block_size: u64,
    pub tier: String,
    pub has_lora_id: bool,
    pub lora_name: String,
    pub features: Vec<Option<Features>>,
    pub group: Option<u64>,
    pub kind: String,
}

#[derive(Debug)]
pub enum Event {
    Stored(Stored),
    Removed { hashes: Vec<u64>, tier: String, group: Option<u64> },
    Cleared,
}

#[derive(Debug, Default)]
pub struct Batch {
    pub events: Vec<Event>,
    pub rank: Option<u64>,
    /// Events that cannot be used.
    pub errors: u64,
}

/// An event cannot be used.
struct Broken;

/// The events of a payload; None if it is no batch.
pub fn decode(payload: &[u8], sglang: bool) -> Option<Batch> {
    if payload.len() > MAX_PAYLOAD_BYTES {
        return None;
    }
    let document = Value::read(payload)?;
    let (events, rank) = match &document {
        Value::Array(parts) if parts.len() >= 2 => (parts[1].array()?, parts.get(2)),
        Value::Map(_) => (document.member("events")?.array()?, document.member("data_parallel_rank")),
        _ => return None,
    };
    let mut batch = Batch { rank: rank.and_then(unsigned), ..Batch::default() };
    for raw in events {
        match event(raw, sglang) {
            Ok(Some(found)) => batch.events.push(found),
            Ok(None) => {}
            Err(Broken) => batch.errors += 1,
        }
    }
    Some(batch)
}

/// The tier that a medium is.
pub fn tier_of(medium: &Value<'_>) -> String {
    let name = medium.text().unwrap_or("").to_lowercase();
    match name.as_str() {
        "" => GPU.to_owned(),
        "cpu_pinned" | "cpu_tier1" | "cpu_tier2" => "cpu".to_owned(),
        _ => name,
    }
}

fn event(raw: &Value<'_>, sglang: bool) -> Result<Option<Event>, Broken> {
    let tag = match raw {
        Value::Array(fields) if !fields.is_empty() => fields[0].text(),
        Value::Map(_) => raw.member("type").and_then(Value::text),
        _ => None,
    }
    .ok_or(Broken)?;
    let (names, required): (&[&str], usize) = match tag {
        "BlockStored" => (&STORED, 5),
        "BlockRemoved" => (&REMOVED, 2),
        "AllBlocksCleared" => return Ok(Some(Event::Cleared)),
        _ => return Ok(None),
    };
    let nil = Value::Nil;
    let fields: Vec<&Value<'_>> = match raw {
        Value::Array(values) => {
            if values.len() < required {
                return Err(Broken);
            }
            let most = if sglang { LAST_SGLANG_FIELD + 1 } else { names.len() };
            (0..names.len()).map(|place| values.get(place).filter(|_| place < most).unwrap_or(&nil)).collect()
        }
        _ => {
            if names[..required].iter().any(|name| raw.member(name).is_none()) {
                return Err(Broken);
            }
            names.iter().map(|name| raw.member(name).unwrap_or(&nil)).collect()
        }
    };
    if tag == "BlockStored" {
        return stored(&fields).map(|stored| Some(Event::Stored(stored)));
    }
    Ok(Some(Event::Removed { hashes: hashes(fields[1])?, tier: tier_of(fields[2]), group: group(fields[3])? }))
}

fn stored(fields: &[&Value<'_>]) -> Result<Stored, Broken> {
    let block_size = unsigned(fields[4]).ok_or(Broken)?;
    let lora_name = fields[7].text().unwrap_or("").to_owned();
    let parent = match fields[2] {
        Value::Nil | Value::Unsigned(0) => None,
        other => Some(block_key(other)?),
    };
    Ok(Stored {
        hashes: hashes(fields[1])?,
        parent,
        tokens: tokens(fields[3])?,
        block_size,
        tier: tier_of(fields[6]),
        has_lora_id: matches!(fields[5], Value::Unsigned(_) | Value::Negative(_)),
        features: if fields[8].is_nil() { Vec::new() } else { features(fields[8], &lora_name)? },
        group: group(fields[9])?,
        kind: fields[10].text().unwrap_or("").to_owned(),
        lora_name,
    })
}

fn unsigned(value: &Value<'_>) -> Option<u64> {
    match value {
        Value::Unsigned(number) => Some(*number),
        _ => None,
    }
}

/// An engine's hash as 64 bits: whole digests by their last eight bytes.
fn block_key(value: &Value<'_>) -> Result<u64, Broken> {
    match value {
        Value::Unsigned(number) => Ok(*number),
        Value::Negative(number) => Ok(number.cast_unsigned()),
        Value::Bytes(bytes) if !bytes.is_empty() => {
            let last = &bytes[bytes.len().saturating_sub(8)..];
            Ok(last.iter().fold(0, |key, byte| key << 8 | u64::from(*byte)))
        }
        _ => Err(Broken),
    }
}

fn hashes(value: &Value<'_>) -> Result<Vec<u64>, Broken> {
    value.array().ok_or(Broken)?.iter().map(block_key).collect()
}

fn tokens(value: &Value<'_>) -> Result<Vec<u8>, Broken> {
    let ids = value.array().ok_or(Broken)?;
    let mut bytes = Vec::with_capacity(ids.len() * 4);
    for id in ids {
        let id = unsigned(id).and_then(|id| u32::try_from(id).ok()).ok_or(Broken)?;
        bytes.extend_from_slice(&id.to_le_bytes());
    }
    Ok(bytes)
}

fn group(value: &Value<'_>) -> Result<Option<u64>, Broken> {
    if value.is_nil() { Ok(None) } else { unsigned(value).map(Some).ok_or(Broken) }
}

fn features(value: &Value<'_>, lora_name: &str) -> Result<Vec<Option<Features>>, Broken> {
    value.array().ok_or(Broken)?.iter().map(|keys| of_block(keys, lora_name)).collect()
}

fn of_block(keys: &Value<'_>, lora_name: &str) -> Result<Option<Features>, Broken> {
    if keys.is_nil() {
        return Ok(Some(Features::new()));
    }
    let mut found = Features::new();
    for key in keys.array().ok_or(Broken)? {
        let name = match key {
            Value::Bytes(_) => return Ok(None),
            Value::Array(parts) => parts.first().unwrap_or(key),
            other => other,
        };
        if let Some(name) = name.text() {
            found.push(name.to_owned());
        }
    }
    if !lora_name.is_empty()
        && let Some(place) = found.iter().position(|name| name == lora_name)
    {
        found.remove(place);
    }
    Ok(Some(found))
}
