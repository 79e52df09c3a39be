//! grpc.health.v1 from a table: Check, List and Watch. Twin of `epp/transport/grpc_health.py`.
//!
//! Source: grpc/grpc: src/proto/grpc/health/v1/health.proto

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use h2::server::SendResponse;
use tokio::sync::watch;

use super::grpc::{accepted, end_with, refuse};
use crate::wire::fields::{health_check_request, health_check_response, health_list_response, serving_status};
use crate::wire::framing::{Assembler, put_prefix};
use crate::wire::messages::Status;
use crate::wire::proto::{Reader, Value, entry, put_bytes, put_message, put_number};

/// A request names one service; no name is longer.
const MAX_REQUEST_BYTES: usize = 64 * 1024;
const STOPPING: &str = "server is stopping";

/// Answers by service name.
#[derive(Debug)]
pub struct HealthTable {
    pub statuses: BTreeMap<String, u32>,
    /// For names that are not listed.
    pub default: u32,
    /// Watches end; they would hold the server open.
    pub stopped: bool,
}

impl Default for HealthTable {
    fn default() -> Self {
        Self { statuses: BTreeMap::new(), default: serving_status::NOT_SERVING as u32, stopped: false }
    }
}

impl HealthTable {
    fn status(&self, service: &str) -> u32 {
        self.statuses.get(service).copied().unwrap_or(self.default)
    }
}

/// Serve one call of the method with this name.
pub async fn serve(
    method: &str,
    recv: RecvStream,
    mut respond: SendResponse<Bytes>,
    table: watch::Receiver<Arc<HealthTable>>,
) {
    let Some(request) = read_request(recv).await else {
        return refuse(&mut respond, Status::InvalidArgument, "no request");
    };
    let service = service(&request);
    match method {
        "Check" => {
            let status = table.borrow().status(&service);
            answer(respond, &check_response(status));
        }
        "List" => {
            let message = list_response(&table.borrow());
            answer(respond, &message);
        }
        "Watch" => watch(respond, &service, table).await,
        _ => refuse(&mut respond, Status::Unimplemented, "no such method"),
    }
}

async fn read_request(mut recv: RecvStream) -> Option<Bytes> {
    let mut assembler = Assembler::default();
    loop {
        if let Some(message) = assembler.next(MAX_REQUEST_BYTES).ok()? {
            return Some(message);
        }
        let data = recv.data().await?.ok()?;
        let _ = recv.flow_control().release_capacity(data.len());
        assembler.push(data);
    }
}

fn service(request: &[u8]) -> String {
    let mut fields = Reader::new(request);
    let mut found = String::new();
    while let Ok(Some(field)) = fields.field() {
        if let (health_check_request::SERVICE, Value::Bytes(name)) = field {
            found = String::from_utf8_lossy(name).into_owned();
        }
    }
    found
}

fn check_response(status: u32) -> Vec<u8> {
    let mut out = Vec::new();
    put_number(&mut out, health_check_response::STATUS, status.into());
    out
}

fn list_response(table: &HealthTable) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, status) in &table.statuses {
        put_message(&mut out, health_list_response::STATUSES, |record| {
            put_bytes(record, entry::KEY, name.as_bytes());
            put_bytes(record, entry::VALUE, &check_response(*status));
        });
    }
    out
}

fn framed(message: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(message.len() + 5);
    put_prefix(&mut out, message.len());
    out.extend_from_slice(message);
    BytesMut::from(&out[..]).freeze()
}

/// The one response of a unary call. Small enough to be buffered whatever the window.
fn answer(mut respond: SendResponse<Bytes>, message: &[u8]) {
    if let Ok(mut send) = respond.send_response(accepted(), false)
        && send.send_data(framed(message), false).is_ok()
    {
        end_with(&mut send, Status::Ok, "");
    }
}

/// Send each status that differs from the one before; changes that come together are told as one.
async fn watch(mut respond: SendResponse<Bytes>, service: &str, mut table: watch::Receiver<Arc<HealthTable>>) {
    let Ok(mut send) = respond.send_response(accepted(), false) else {
        return;
    };
    let mut sent = None;
    loop {
        let (status, stopped) = {
            let now = table.borrow_and_update();
            (now.status(service), now.stopped)
        };
        if stopped {
            return end_with(&mut send, Status::Unavailable, STOPPING);
        }
        if sent != Some(status) {
            sent = Some(status);
            send.reserve_capacity(16);
            if send.send_data(framed(&check_response(status)), false).is_err() {
                return;
            }
        }
        let mut changed = pin!(table.changed());
        let gone = poll_fn(|cx| {
            if send.poll_reset(cx).is_ready() {
                return Poll::Ready(true);
            }
            changed.as_mut().poll(cx).map(|changed| changed.is_err())
        });
        if gone.await {
            return;
        }
    }
}
