//! Listening: one socket per worker on one address, and the loop that accepts from it.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Context, http};

/// Connections that the kernel keeps for us until they are accepted.
const BACKLOG: i32 = 4096;
/// Connections of one worker that are still in their HTTP part. Full: nothing more is accepted until one ends, and the
/// kernel's backlog fills.
const MAX_HANDSHAKES: usize = 1024;
/// Bytes a client may send ahead of what the node has read.
const RECEIVE_BUFFER: usize = 64 * 1024;
/// How long to wait when accepting fails, as it does when the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long handshakes under way may take to end when the server does.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// How often to say so.
const COMPLAIN_EVERY: Duration = Duration::from_secs(1);

/// Binds `address` so that each worker can have a listener of its own on it: the kernel spreads connections among them.
///
/// With port 0 the first call picks a port; the others are to be called with the address the first one got.
///
/// # Errors
/// Whatever the system says; most likely that the address is in use.
pub fn listen(address: SocketAddr) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    // Inherited by every connection: what a publisher sends ahead of a busy node waits on its side, not in ours. Less
    // hidden delay, and a bound on kernel memory. The system doubles the figure for its own bookkeeping.
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Accepts until `stop` resolves, each connection in a local task of its own. Then answers those that the kernel has
/// for us already, and gives handshakes under way a moment to end.
///
/// Must run on a local runtime. The listener is closed when this returns.
///
/// # Errors
/// When the listener cannot be registered with the runtime. Failing accepts are survived.
pub async fn serve(listener: StdListener, context: Rc<Context>, stop: impl Future<Output = ()>) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    accept_all(&listener, &context, &places, stop).await;
    close(listener, &context, &places)?;
    // All places free: every handshake has ended.
    let _ = tokio::time::timeout(LAST_ANSWERS, places.acquire_many(MAX_HANDSHAKES as u32)).await;
    Ok(())
}

async fn accept_all(
    listener: &TcpListener,
    context: &Rc<Context>,
    places: &Arc<Semaphore>,
    stop: impl Future<Output = ()>,
) {
    let mut complained: Option<Instant> = None;
    let mut stop = pin!(stop);
    loop {
        let (stream, peer, place) = tokio::select! {
            biased;
            () = &mut stop => return,
            result = accept(listener, places) => match result {
                Ok(accepted) => accepted,
                Err(error) if is_of_one_connection(&error) => continue,
                Err(error) => {
                    if complained.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY) {
                        tracing::warn!(%error, "cannot accept connections");
                        complained = Some(Instant::now());
                    }
                    tokio::select! {
                        () = &mut stop => return,
                        () = tokio::time::sleep(ACCEPT_PAUSE) => continue,
                    }
                }
            },
        };
        begin(stream, peer, context, place);
    }
}

/// Closes the listener. The kernel resets what is in its queue then, so the queue is emptied first: only who comes
/// within these microseconds is lost.
fn close(listener: TcpListener, context: &Rc<Context>, places: &Arc<Semaphore>) -> io::Result<()> {
    let listener = listener.into_std()?;
    while let Ok(place) = places.clone().try_acquire_owned() {
        let Ok((stream, peer)) = listener.accept() else { break };
        stream.set_nonblocking(true)?;
        begin(TcpStream::from_std(stream)?, peer, context, place);
    }
    Ok(())
}

fn begin(stream: TcpStream, peer: SocketAddr, context: &Rc<Context>, place: OwnedSemaphorePermit) {
    // Batches go out whole: waiting for more to send would only add delay.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let context = context.clone();
    tokio::task::spawn_local(async move {
        http::serve(stream, peer.ip(), context, place).await;
    });
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    // The semaphore is never closed.
    let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, place))
}

/// Errors of a connection that died in the backlog; the listener itself is well.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
