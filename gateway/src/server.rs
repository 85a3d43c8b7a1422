//! The public door: accepting, HTTP, and the handshake that turns a connection into a socket.
//!
//! Called by the worker, once per worker thread. Knows nothing of how sessions run: a socket past its handshake goes to
//! a callback. Knows settings only as [`HandshakeRules`] and [`AdmissionLimits`].

pub mod admin;
pub mod admission;
pub mod api;
pub mod authorize;
mod handshake;
mod http;
mod listener;
mod outcome;
mod pages;
pub mod probe;

use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use hyper::server::conn::http1::Builder;

pub use admission::{Admission, AdmissionLimits, Visit};
pub use authorize::{AuthorizeOptions, Authorizer};
pub use handshake::{HandshakeRules, InvalidOrigin, Origin, OriginPolicy};
pub use listener::{listen, serve};
pub use outcome::HandshakeOutcome;

use crate::access::Access;
use crate::session::accepted::Accepted;

/// What one worker's server works with.
pub struct Context {
    rules: HandshakeRules,
    admission: Arc<Admission>,
    access: Arc<Access>,
    draining: Rc<dyn Fn() -> bool>,
    on_socket: Rc<dyn Fn(Accepted)>,
    on_outcome: Rc<dyn Fn(HandshakeOutcome, SystemTime)>,
    builder: Builder,
    /// None where a test has no rooms.
    api: Option<Rc<api::Api>>,
    pages: pages::Pages,
}

impl Context {
    /// A worker's server: `admission` and `access` are shared by all workers, `draining` is asked at each handshake, `on_socket` gets
    /// every socket (and is to spawn its session, not to run it), `on_outcome` every connection's outcome once, with the time it was accepted at.
    pub fn new(
        rules: HandshakeRules,
        admission: Arc<Admission>,
        access: Arc<Access>,
        draining: Rc<dyn Fn() -> bool>,
        on_socket: Rc<dyn Fn(Accepted)>,
        on_outcome: Rc<dyn Fn(HandshakeOutcome, SystemTime)>,
        api: Option<Rc<api::Api>>,
    ) -> Rc<Self> {
        let builder = http::builder(&rules);
        let pages = pages::Pages::new(api.as_ref().and_then(|api| api.video()));
        Rc::new(Self { rules, admission, access, draining, on_socket, on_outcome, builder, api, pages })
    }

    fn record(&self, outcome: HandshakeOutcome, began: SystemTime) {
        (self.on_outcome)(outcome, began);
    }
}
