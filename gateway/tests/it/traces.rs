//! One publish, followed by a collector from the node that took it to every node that delivered it.

use std::collections::HashMap;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::json;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tonic::transport::server::TcpIncoming;

use super::support::{Client, Node, Redis, room, within};

struct Collector(UnboundedSender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let _ = self.0.send(request.into_inner());
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

pub(crate) async fn collector() -> (String, UnboundedReceiver<ExportTraceServiceRequest>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (sender, received) = unbounded_channel();
    let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(Collector(sender)));
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    (endpoint, received)
}

/// The spans of a request, each with the node it came from.
fn spans(request: ExportTraceServiceRequest) -> Vec<(String, Span)> {
    let mut found = Vec::new();
    for resource in request.resource_spans {
        let attributes = format!("{:?}", resource.resource);
        let node = if attributes.contains("teller") { "teller" } else { "hearer" };
        for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            found.push((node.to_owned(), span));
        }
    }
    found
}

#[tokio::test]
async fn a_publish_can_be_followed_to_every_delivery() {
    let (endpoint, mut received) = collector().await;
    let redis = Redis::start().await;
    let traced = ["--otlp-endpoint", &endpoint, "--otlp-sample-ratio"];
    let teller = Node::join(&redis, "teller", &[&traced[..], &["1"]].concat()).await;
    let hearer = Node::join(&redis, "hearer", &[&traced[..], &["0"]].concat()).await;
    let name = room();
    let (mut alice, _) = Client::enter(&teller, &name).await;
    let (mut bob, _) = Client::enter(&hearer, &name).await;
    alice.publish(&name, json!("hello")).await;
    alice.messages(&name, 1).await;
    bob.messages(&name, 1).await;

    let mut seen: HashMap<(String, String), Span> = HashMap::new();
    let wanted = [
        ("teller", "handshake"),
        ("teller", "publish"),
        ("teller", "broker publish"),
        ("teller", "deliver"),
        ("hearer", "deliver"),
    ];
    let missing = |seen: &HashMap<(String, String), Span>| {
        wanted.iter().any(|(node, name)| !seen.contains_key(&((*node).to_owned(), (*name).to_owned())))
    };
    within("all spans", async {
        while missing(&seen) {
            let request = received.recv().await.unwrap();
            seen.extend(spans(request).into_iter().map(|(node, span)| ((node, span.name.clone()), span)));
        }
    })
    .await;
    let span = |node: &str, name: &str| &seen[&(node.to_owned(), name.to_owned())];
    let publish = span("teller", "publish");
    assert!(publish.parent_span_id.is_empty());
    for (node, name) in &wanted[2..] {
        let child = span(node, name);
        assert_eq!(child.trace_id, publish.trace_id, "{node} {name}");
        assert_eq!(child.parent_span_id, publish.span_id, "{node} {name}");
    }
    assert!(!seen.contains_key(&("hearer".into(), "handshake".into())), "it samples nothing of its own");
    let handshake = span("teller", "handshake");
    assert!(handshake.end_time_unix_nano > handshake.start_time_unix_nano);
}
