//! How many sockets somebody has open: those by which they watch, and those by which they speak.
//!
//! In: whose token was checked. Out: a place among theirs, until it is dropped.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::rates::limited;
use crate::wire::error::{ApiError, Code};

/// Those of all users.
pub(crate) struct Sockets {
    per_user: u32,
    open: Mutex<HashMap<String, u32>>,
}

/// One that is open.
pub(crate) struct Socket {
    of: Arc<Sockets>,
    user_id: String,
}

impl Sockets {
    pub(crate) fn new(per_user: u32) -> Arc<Self> {
        Arc::new(Self { per_user, open: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, u32>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more of somebody's.
    ///
    /// # Errors
    /// [`Code::RateLimit`], as of who connects too often.
    pub(crate) fn open(self: &Arc<Self>, user_id: &str) -> Result<Socket, ApiError> {
        let mut open = self.lock();
        let count = open.get(user_id).copied().unwrap_or_default();
        if count >= self.per_user {
            limited("sockets");
            let why = format!("{count} sockets are open: a user may have {}; close one", self.per_user);
            return Err(ApiError::new(Code::RateLimit, why));
        }
        open.insert(user_id.to_string(), count + 1);
        Ok(Socket { of: self.clone(), user_id: user_id.to_string() })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let mut open = self.of.lock();
        match open.get_mut(&self.user_id) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(open.remove(&self.user_id)),
        }
    }
}
