//! What every broker refuses before it sends or stores anything.

use roomcast_protocol::{MAX_REF_BYTES, RoomName, check_display_name};

use super::{BrokerError, MAX_BATCH, MAX_TOPS, PresenceOp, Record, envelope};

/// What the format can carry, checked before anything is sent: a record that others refuse to decode must not be stored.
pub(super) fn check_records(records: &[Record]) -> Result<(), BrokerError> {
    let rejected = |what: &str| Err(BrokerError::Rejected(what.into()));
    if records.is_empty() || records.len() > MAX_BATCH {
        return rejected("a batch holds 1 to 1024 records");
    }
    if records.iter().any(|record| record.id.is_empty() || record.id.len() > MAX_REF_BYTES) {
        return rejected("a message id has 1 to 128 bytes");
    }
    if records.iter().any(|record| check_display_name(&record.name).is_err()) {
        return rejected("a display name breaks its rule");
    }
    let size: usize = records.iter().map(|record| record.data.len() + 512).sum();
    if size > envelope::MAX_ENVELOPE_BYTES / 2 {
        return rejected("a batch is larger than 64 MiB");
    }
    Ok(())
}

/// The same for questions about rooms.
pub(super) fn check_rooms(rooms: &[RoomName]) -> Result<(), BrokerError> {
    let few = rooms.len() <= MAX_TOPS;
    if few { Ok(()) } else { Err(BrokerError::Rejected("at most 256 rooms in one call".into())) }
}

/// The same for presence operations.
pub(super) fn check_ops(ops: &[PresenceOp]) -> Result<(), BrokerError> {
    if ops.len() > MAX_BATCH {
        return Err(BrokerError::Rejected("at most 1024 operations in one call".into()));
    }
    let mut names = ops.iter().map(|op| match op {
        PresenceOp::Enter { name, .. } | PresenceOp::Leave { name, .. } | PresenceOp::Rename { name, .. } => name,
    });
    if names.any(|name| check_display_name(name).is_err()) {
        return Err(BrokerError::Rejected("a display name breaks its rule".into()));
    }
    Ok(())
}
