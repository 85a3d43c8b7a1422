//! Ends the connection before this one, for the server may not know yet that it was given up: calls that are still on
//! their way there must not be done behind those that follow. A client that left would be entered again, for good.
//!
//! Used by `commands`. A server where the user may not do this is believed to have nothing on its way.

use std::cell::RefCell;
use std::sync::Arc;

use ::redis::aio::MultiplexedConnection;
use ::redis::{Cmd, RedisResult, cmd};

use super::identity::NONE;

/// The last connection: its id, and the dataset behind it. Ids are those of one process, and so is, on a master, the
/// identity of a dataset.
#[derive(Default)]
pub(super) struct Fence(RefCell<Option<(u64, Arc<str>)>>);

impl Fence {
    /// To be called on a new connection before all calls.
    pub(super) async fn cut_off_former(
        &self,
        connection: &mut MultiplexedConnection,
        dataset: &Arc<str>,
    ) -> RedisResult<()> {
        // Kept until the new one stands for it: this may be given up halfway.
        let former = self.0.borrow().clone().filter(|(_, before)| before == dataset && &**before != NONE);
        if let Some((id, _)) = former {
            ask(connection, cmd("CLIENT").arg("KILL").arg("ID").arg(id)).await?;
        }
        let id = ask(connection, cmd("CLIENT").arg("ID")).await?;
        *self.0.borrow_mut() = id.map(|id| (id, Arc::clone(dataset)));
        Ok(())
    }
}

/// The answer; none if the server refuses.
async fn ask(connection: &mut MultiplexedConnection, command: &Cmd) -> RedisResult<Option<u64>> {
    match command.query_async(connection).await {
        Err(error) if error.code().is_none() => Err(error),
        answer => Ok(answer.ok()),
    }
}
