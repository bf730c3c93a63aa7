//! Mutex and condition variable of pthread, with the interface of std's.
//!
//! In: as std's. Out: as std's; nothing is ever poisoned.

#![expect(unsafe_code, reason = "calls pthread")]

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::{LockResult, TryLockError, TryLockResult};
use std::time::Duration;

/// At an address that does not change, as pthread wants it.
pub(crate) struct Mutex<T> {
    raw: Box<UnsafeCell<libc::pthread_mutex_t>>,
    value: UnsafeCell<T>,
}

// SAFETY: as std's: who has the lock has the value, and nobody else.
unsafe impl<T: Send> Send for Mutex<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Mutex<T> {}

pub(crate) struct MutexGuard<'a, T>(&'a Mutex<T>, std::marker::PhantomData<*const ()>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { raw: Box::new(UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER)), value: UnsafeCell::new(value) }
    }

    pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        // SAFETY: initialised, and not moved.
        let status = unsafe { libc::pthread_mutex_lock(self.raw.get()) };
        assert_eq!(status, 0);
        Ok(MutexGuard(self, std::marker::PhantomData))
    }

    pub(crate) fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        // SAFETY: initialised, and not moved.
        match unsafe { libc::pthread_mutex_trylock(self.raw.get()) } {
            0 => Ok(MutexGuard(self, std::marker::PhantomData)),
            _ => Err(TryLockError::WouldBlock),
        }
    }
}

impl<T> Drop for Mutex<T> {
    fn drop(&mut self) {
        // SAFETY: nobody has a reference to it any more, so nobody holds it.
        unsafe { libc::pthread_mutex_destroy(self.raw.get()) };
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> std::fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mutex")
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: this thread has the lock.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: this thread has the lock.
        unsafe { libc::pthread_mutex_unlock(self.0.raw.get()) };
    }
}

pub(crate) struct Condvar(Box<UnsafeCell<libc::pthread_cond_t>>);

// SAFETY: pthread's own are for any thread.
unsafe impl Send for Condvar {}
// SAFETY: as above.
unsafe impl Sync for Condvar {}

impl Condvar {
    pub(crate) fn new() -> Self {
        Self(Box::new(UnsafeCell::new(libc::PTHREAD_COND_INITIALIZER)))
    }

    pub(crate) fn notify_one(&self) {
        // SAFETY: initialised, and not moved.
        unsafe { libc::pthread_cond_signal(self.0.get()) };
    }

    pub(crate) fn notify_all(&self) {
        // SAFETY: as above.
        unsafe { libc::pthread_cond_broadcast(self.0.get()) };
    }

    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        // SAFETY: as above; this thread has the lock.
        let status = unsafe { libc::pthread_cond_wait(self.0.get(), guard.0.raw.get()) };
        assert_eq!(status, 0);
        Ok(guard)
    }

    /// The second is whether the time was over.
    pub(crate) fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        patience: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, bool)> {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        // A year is for ever.
        let end = since + patience.min(Duration::from_secs(31_536_000));
        let tv_nsec = libc::c_long::from(end.subsec_nanos() as i32);
        let end = libc::timespec { tv_sec: i64::try_from(end.as_secs()).unwrap_or(i64::MAX), tv_nsec };
        // SAFETY: as above.
        let status = unsafe { libc::pthread_cond_timedwait(self.0.get(), guard.0.raw.get(), &end) };
        Ok((guard, status == libc::ETIMEDOUT))
    }
}

impl Default for Condvar {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Condvar {
    fn drop(&mut self) {
        // SAFETY: nobody has a reference to it any more, so nobody waits.
        unsafe { libc::pthread_cond_destroy(self.0.get()) };
    }
}
