//! Traces against a collector in this process.

use std::collections::HashMap;
use std::net::SocketAddr;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::trace::v1::Span as Exported;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind as Kind;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tonic::transport::server::TcpIncoming;

use super::trace::{TraceOptions, TraceParent, Tracing};

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

async fn collector() -> (SocketAddr, UnboundedReceiver<ExportTraceServiceRequest>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let (sender, received) = unbounded_channel();
    let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(Collector(sender)));
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    (address, received)
}

fn dropped() -> prometheus::IntCounter {
    prometheus::IntCounter::new("dropped", "-").expect("valid")
}

fn tracing(address: SocketAddr, sample_ratio: f64, node: &str) -> Tracing {
    let endpoint = format!("http://{address}");
    Tracing::start(&TraceOptions { endpoint, sample_ratio, node_id: node.to_owned() }, dropped()).expect("started")
}

/// Every span received so far, by (node, name).
fn spans(received: &mut UnboundedReceiver<ExportTraceServiceRequest>) -> HashMap<(String, String), Exported> {
    let mut spans = HashMap::new();
    while let Ok(request) = received.try_recv() {
        for resource in request.resource_spans {
            let attributes = format!("{:?}", resource.resource);
            assert!(attributes.contains("roomcast-gateway"), "{attributes}");
            let node = if attributes.contains("node-a") { "a" } else { "b" };
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                spans.insert((node.to_owned(), span.name.clone()), span);
            }
        }
    }
    spans
}

#[tokio::test]
async fn a_publish_is_followed_through_the_broker_to_another_node() {
    let (address, mut received) = collector().await;
    let (here, there) = (tracing(address, 1.0, "node-a"), tracing(address, 0.0, "node-b"));

    let began = std::time::SystemTime::now() - std::time::Duration::from_secs(1);
    let mut publish = here.publish().expect("sampled").since(began);
    publish.set("roomcast.mode", "durable");
    let broker = here.broker(Some(publish.context())).expect("a child of a sampled parent");
    let carried = broker.context();
    broker.end();
    let local = here.deliver(Some(carried), false).expect("sampled");
    local.end();
    publish.end();
    // The other node samples no publishes of its own, but follows the decision that came with the message.
    assert!(there.publish().is_none());
    let context = TraceParent::decode(carried.as_bytes()).expect("valid");
    let mut remote = there.deliver(Some(context), true).expect("sampled");
    remote.fail("slow_consumer");
    remote.end();
    here.shutdown().await;
    there.shutdown().await;

    let spans = spans(&mut received);
    let span = |node: &str, name: &str| spans.get(&(node.to_owned(), name.to_owned())).expect("exported");
    let (publish, broker) = (span("a", "publish"), span("a", "broker publish"));
    let (local, remote) = (span("a", "deliver"), span("b", "deliver"));
    assert!(publish.parent_span_id.is_empty(), "a publish is a root");
    assert_eq!(broker.parent_span_id, publish.span_id);
    assert_eq!(local.parent_span_id, broker.span_id);
    assert_eq!(remote.parent_span_id, broker.span_id);
    assert_eq!(spans.len(), 4);
    for span in spans.values() {
        assert_eq!(span.trace_id, publish.trace_id);
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
    }
    assert_eq!((publish.kind(), broker.kind(), remote.kind()), (Kind::Server, Kind::Producer, Kind::Consumer));
    assert!(publish.end_time_unix_nano - publish.start_time_unix_nano >= 1_000_000_000);
    assert_eq!(publish.attributes[0].key, "roomcast.mode");
    assert_eq!(remote.status.as_ref().expect("set").message, "slow_consumer");
}

#[tokio::test]
async fn what_is_not_sampled_costs_no_span() {
    let off = Tracing::off();
    assert!(off.publish().is_none() && off.handshake().is_none() && !off.is_on());
    off.shutdown().await;

    let (address, mut received) = collector().await;
    let some = tracing(address, 0.25, "node-a");
    let sampled = (0..4000).filter(|_| some.handshake().is_some()).count();
    assert!((500..1500).contains(&sampled), "about a quarter, not {sampled}");
    assert!(some.broker(None).is_none());
    let mut unsampled = some.clone().publish();
    while unsampled.is_none() {
        unsampled = some.publish();
    }
    let mut bytes = *unsampled.expect("one in four").context().as_bytes();
    bytes[24] = 0;
    assert!(some.deliver(TraceParent::decode(&bytes), true).is_none(), "the publisher decided against it");
    some.shutdown().await;
    assert!(received.try_recv().is_ok());
}

#[tokio::test]
async fn an_absent_collector_costs_spans_and_at_most_the_flush() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    let lost = dropped();
    let options = TraceOptions { endpoint: format!("http://{address}"), sample_ratio: 1.0, node_id: "n".to_owned() };
    let tracing = Tracing::start(&options, lost.clone()).expect("started");
    for _ in 0..10_000 {
        drop(tracing.publish());
    }
    tracing.shutdown().await;
    assert!(lost.get() > 0, "what is lost is counted");
    let bad = TraceOptions { endpoint: "http://[".to_owned(), ..options };
    assert!(Tracing::start(&bad, lost).expect_err("refused").to_string().contains("--otlp-endpoint"));
}

#[test]
fn strangers_cannot_confuse_the_decoder() {
    let good: Vec<u8> = (1..=25).collect();
    let parsed = TraceParent::decode(&good).expect("valid");
    assert_eq!(parsed.as_bytes()[..24], good[..24]);
    assert!(parsed.is_sampled() && parsed.as_bytes()[24] == 1, "other flags are dropped");
    assert!(TraceParent::decode(&[]).is_none());
    assert!(TraceParent::decode(&good[..24]).is_none());
    assert!(TraceParent::decode(&[1; 26]).is_none());
    assert!(TraceParent::decode(&[0; 25]).is_none());
    let mut no_span = [1_u8; 25];
    no_span[16..24].fill(0);
    assert!(TraceParent::decode(&no_span).is_none());
}
