//! A panic in the middle of a stream, over a connection in memory.

use std::cell::Cell;
use std::future::poll_fn;

use tokio::io::duplex;

use http::HeaderMap;

use super::*;
use crate::net::clock::Clock;
use crate::net::stats::Stats;
use crate::wire::framing::put_prefix;
use crate::wire::proto::{put_bytes, put_message, put_number};

thread_local! {
    /// Messages until the next one panics.
    static PANICS_AFTER: Cell<Option<u32>> = const { Cell::new(None) };
}

pub fn panic_if_wanted() {
    PANICS_AFTER.with(|left| match left.get() {
        Some(0) => panic!("wanted by a test"),
        more => left.set(more.map(|count| count - 1)),
    });
}

fn framed(fill: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut message = Vec::new();
    fill(&mut message);
    let mut out = Vec::new();
    put_prefix(&mut out, message.len());
    out.extend_from_slice(&message);
    out.into()
}

/// A stream whose request was asked about; then something panics. Gives what Python was told, and the trailers.
async fn panics(in_message: bool) -> (Vec<Event>, Option<HeaderMap>, Arc<Shared>) {
    let shared = Arc::new(Shared::new(Clock::new(0.0), Stats::new(vec![], vec![])).unwrap());
    shared.configure(Settings { max_receive_bytes: 1000, max_send_bytes: 1000, ..Settings::default() });
    shared.stats.opened();
    let (ours, theirs) = duplex(64 * 1024);
    let (client, server) = tokio::join!(h2::client::handshake(theirs), h2::server::handshake(ours));
    let ((mut client, connection), mut server) = (client.unwrap(), server.unwrap());
    tokio::spawn(connection);
    let (response, mut send) = client.send_request(http::Request::new(()), false).unwrap();
    send.send_data(framed(|out| put_message(out, 2, |headers| put_number(headers, 3, 0))), false).unwrap();
    send.send_data(framed(|out| put_message(out, 4, |body| put_bytes(body, 1, b"body"))), false).unwrap();
    send.send_data(framed(|out| put_message(out, 4, |body| put_number(body, 2, 1))), false).unwrap();
    let (request, respond) = server.accept().await.unwrap().unwrap();
    tokio::spawn(async move { while server.accept().await.is_some() {} });
    let key = Key { thread: 0, generation: 0, index: 0 };
    let mut stream = Stream::new(key, shared.clone(), request.into_body(), respond);
    while !stream.machine.owes_end() {
        let _ = poll_fn(|cx| Poll::Ready(stream.poll(cx))).await;
        tokio::task::yield_now().await;
    }
    PANICS_AFTER.set(Some(0));
    if in_message {
        send.send_data(framed(|out| put_message(out, 4, |body| put_number(body, 2, 1))), false).unwrap();
    } else {
        stream.guarded(|_| panic!("wanted by a test"));
    }
    poll_fn(|cx| stream.poll(cx)).await;
    stream.command(Command::Answer(Answer::Reply(Bytes::new())));
    PANICS_AFTER.set(None);
    let response = response.await.unwrap();
    (shared.queue.take(10), Some(response.headers().clone()), shared)
}

#[tokio::test]
async fn a_panic_ends_its_stream_only() {
    for in_message in [true, false] {
        let (events, headers, shared) = panics(in_message).await;
        assert_eq!(headers.unwrap()["grpc-status"], "13");
        let told: Vec<&Told> = events.iter().map(|event| &event.told).collect();
        assert!(
            matches!(&told[..], [Told::Request(_), Told::Finished { outcome, held: false }] if outcome.end == End::Failed),
            "{told:?}"
        );
        assert_eq!(shared.stats.by_status(), [("INTERNAL", 1)]);
        drop(events);
        assert_eq!(shared.budget.used_bytes(), 0);
    }
}
