//! A server that does what a test says, good or bad: one script, run for each connection on a thread of its own.
#![allow(clippy::missing_panics_doc, reason = "a test that cannot go on should say where")]

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use tungstenite::{Message, WebSocket};

/// Serves until the test's process ends.
pub struct Fake {
    pub address: SocketAddr,
}

/// One connection, after its handshake.
pub struct Peer(WebSocket<TcpStream>);

impl Fake {
    /// `script` gets each connection and its number, from 0. When it returns, the connection is cut.
    pub fn start(script: impl Fn(&mut Peer, usize) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("an address");
        let script = Arc::new(script);
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let script = Arc::clone(&script);
                let stream = stream.expect("accepted");
                std::thread::spawn(move || {
                    // Who leaves within the handshake is no matter.
                    if let Ok(socket) = tungstenite::accept(stream) {
                        script(&mut Peer(socket), number);
                    }
                });
            }
        });
        Self { address }
    }
}

impl Peer {
    /// False once the other side is gone.
    pub fn tell(&mut self, text: &str) -> bool {
        self.0.send(Message::text(text)).is_ok()
    }

    pub fn ping(&mut self) -> bool {
        self.0.send(Message::Ping(Vec::new().into())).is_ok()
    }

    pub fn close(&mut self, code: u16) {
        let _ = self.0.close(Some(tungstenite::protocol::CloseFrame { code: code.into(), reason: "".into() }));
        self.hear_out();
    }

    /// The next text; none once the other side is gone.
    pub fn hear(&mut self) -> Option<String> {
        loop {
            match self.0.read() {
                Ok(Message::Text(text)) => return Some(text.to_string()),
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }

    /// Says no more, and waits until the other side is gone.
    pub fn hear_out(&mut self) {
        while self.hear().is_some() {}
    }
}
