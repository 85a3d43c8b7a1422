//! What every broker refuses before it sends or stores anything.

use roomcast_protocol::{MAX_REF_BYTES, RoomName, check_display_name, check_info, check_user};

use super::{BrokerError, MAX_BATCH, MAX_TOPS, Member, PresenceOp, Record, envelope};

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
    if records.iter().filter_map(|record| record.user.as_deref()).any(|user| check_user(user).is_err()) {
        return rejected("a user breaks its rule");
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
    let broken = ops.iter().find_map(|op| {
        let Member { name, user, info, .. } = op.member();
        let (user, info) = (user.as_deref().map(check_user), info.as_deref().map(check_info));
        let name = check_display_name(name).is_err().then_some("a display name breaks its rule");
        name.or(user.is_some_and(|user| user.is_err()).then_some("a user breaks its rule"))
            .or(info.is_some_and(|info| info.is_err()).then_some("an info breaks its rule"))
    });
    broken.map_or(Ok(()), |words| Err(BrokerError::Rejected(words.into())))
}
