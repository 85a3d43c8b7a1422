//! The yardstick of idle connections: hyper and fastwebsockets as their examples use them.
//!
//! Runs as a process of its own, started by the idle benchmark. Must not know the gateway.

use std::net::Ipv4Addr;

use anyhow::Result;
use fastwebsockets::{FragmentCollector, OpCode, WebSocketError, upgrade};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// The subcommand of the bench binary under which the server runs.
pub const SUBCOMMAND: &str = "internal-plain-server";

/// The process: upgrades everyone and reads until they leave.
pub fn serve() -> Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(async move {
                let io = TokioIo::new(stream);
                // A connection that fails is seen by the client.
                let _ = http1::Builder::new().serve_connection(io, service_fn(answer)).with_upgrades().await;
            });
        }
    })
}

async fn answer(mut request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, WebSocketError> {
    let (response, upgraded) = upgrade::upgrade(&mut request)?;
    tokio::spawn(async move {
        // As above.
        let _ = hold(upgraded).await;
    });
    Ok(response)
}

async fn hold(upgraded: upgrade::UpgradeFut) -> Result<(), WebSocketError> {
    let mut socket = FragmentCollector::new(upgraded.await?);
    loop {
        let frame = socket.read_frame().await?;
        match frame.opcode {
            OpCode::Close => return Ok(()),
            OpCode::Text | OpCode::Binary => socket.write_frame(frame).await?,
            _ => {}
        }
    }
}
