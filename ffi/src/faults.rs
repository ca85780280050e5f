//! Which status the engine's errors have.

use entgldb::{
    AddPeerError, CloseError, ConfigError, GuardError, JsonCommandError, OpenError, RecordError, SyncError,
    SyncWithError,
};

use crate::failure::Failure;
use crate::status::{
    ENTGLDB_ERROR_CLOSED, ENTGLDB_ERROR_CONFIG, ENTGLDB_ERROR_FORKED, ENTGLDB_ERROR_INVALID_ARGUMENT,
    ENTGLDB_ERROR_LIMIT, ENTGLDB_ERROR_OPEN, ENTGLDB_ERROR_REENTRANT, ENTGLDB_ERROR_REFUSED,
    ENTGLDB_ERROR_STORE, ENTGLDB_ERROR_TIMEOUT, Status,
};

fn guard(error: &GuardError) -> Status {
    match error {
        GuardError::InHook => ENTGLDB_ERROR_REENTRANT,
        GuardError::Forked => ENTGLDB_ERROR_FORKED,
        _ => ENTGLDB_ERROR_CLOSED,
    }
}

impl From<GuardError> for Failure {
    fn from(error: GuardError) -> Self {
        Self::new(guard(&error), error.to_string())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(ENTGLDB_ERROR_CONFIG, error.to_string())
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        let status = match &error {
            OpenError::Config(_) | OpenError::Collection { .. } => ENTGLDB_ERROR_CONFIG,
            _ => ENTGLDB_ERROR_OPEN,
        };
        Self::new(status, error.to_string())
    }
}

impl From<RecordError> for Failure {
    fn from(error: RecordError) -> Self {
        let status = match &error {
            RecordError::Guard(reason) => guard(reason),
            RecordError::Document { .. } | RecordError::UnknownCollection { .. } => {
                ENTGLDB_ERROR_INVALID_ARGUMENT
            }
            RecordError::TooMuch { .. } => ENTGLDB_ERROR_LIMIT,
            RecordError::NoHostStore => ENTGLDB_ERROR_REFUSED,
            _ => ENTGLDB_ERROR_STORE,
        };
        Self::new(status, error.to_string())
    }
}

impl From<SyncWithError> for Failure {
    fn from(error: SyncWithError) -> Self {
        let status = match &error {
            SyncWithError::Sync(SyncError::Guard(reason)) => guard(reason),
            SyncWithError::Peer(AddPeerError::Target(_)) => ENTGLDB_ERROR_INVALID_ARGUMENT,
            SyncWithError::NoLink { .. } | SyncWithError::Sync(SyncError::Timeout { .. }) => {
                ENTGLDB_ERROR_TIMEOUT
            }
            SyncWithError::Sync(SyncError::StoreFailed) => ENTGLDB_ERROR_STORE,
            _ => ENTGLDB_ERROR_CLOSED,
        };
        Self::new(status, error.to_string())
    }
}

impl From<JsonCommandError> for Failure {
    fn from(error: JsonCommandError) -> Self {
        let status = match &error {
            JsonCommandError::Guard(reason) => guard(reason),
            JsonCommandError::Unreadable { .. } => ENTGLDB_ERROR_INVALID_ARGUMENT,
            _ => ENTGLDB_ERROR_REFUSED,
        };
        Self::new(status, error.to_string())
    }
}

impl From<CloseError> for Failure {
    fn from(error: CloseError) -> Self {
        let status = match &error {
            CloseError::Guard(reason) => guard(reason),
            _ => ENTGLDB_ERROR_TIMEOUT,
        };
        Self::new(status, error.to_string())
    }
}
