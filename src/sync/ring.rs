//! rtrb's rings between two steps of a lock, for tools that look into locks.
//!
//! In: as rtrb. Out: as rtrb. Each use of a ring's end is one step, which others come before or after.

use std::sync::{Arc, PoisonError};

use rtrb::chunks::{ChunkError, ReadChunk as Read, WriteChunk};
use rtrb::{PopError, PushError};

use super::{Mutex, MutexGuard};

type Order = Arc<Mutex<()>>;

fn step(order: &Order) -> MutexGuard<'_, ()> {
    order.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) struct RingBuffer;

impl RingBuffer {
    #[expect(clippy::new_ret_no_self, reason = "as rtrb")]
    pub(crate) fn new<T>(capacity: usize) -> (Producer<T>, Consumer<T>) {
        let order = Order::default();
        let (producer, consumer) = rtrb::RingBuffer::new(capacity);
        (Producer { ring: producer, order: order.clone() }, Consumer { ring: consumer, order })
    }
}

pub(crate) struct Producer<T> {
    ring: rtrb::Producer<T>,
    order: Order,
}

impl<T> Producer<T> {
    pub(crate) fn slots(&self) -> usize {
        let _step = step(&self.order);
        self.ring.slots()
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        let _step = step(&self.order);
        self.ring.is_abandoned()
    }

    pub(crate) fn push(&mut self, value: T) -> Result<(), PushError<T>> {
        let _step = step(&self.order);
        self.ring.push(value)
    }

    pub(crate) fn push_entire_slice(&mut self, slice: &[T]) -> Result<(), ChunkError>
    where
        T: Copy,
    {
        let _step = step(&self.order);
        self.ring.push_entire_slice(slice)
    }

    pub(crate) fn write_chunk(&mut self, slots: usize) -> Result<WriteChunk<'_, T>, ChunkError>
    where
        T: Default,
    {
        let _step = step(&self.order);
        self.ring.write_chunk(slots)
    }
}

impl<T> Drop for Producer<T> {
    fn drop(&mut self) {
        let _step = step(&self.order);
    }
}

pub(crate) struct Consumer<T> {
    ring: rtrb::Consumer<T>,
    order: Order,
}

impl<T> Consumer<T> {
    pub(crate) fn pop(&mut self) -> Result<T, PopError> {
        let _step = step(&self.order);
        self.ring.pop()
    }

    #[cfg(feature = "opus")]
    pub(crate) fn pop_entire_slice(&mut self, slice: &mut [T]) -> Result<(), ChunkError>
    where
        T: Copy,
    {
        let _step = step(&self.order);
        self.ring.pop_entire_slice(slice)
    }

    pub(crate) fn read_chunk(&mut self, slots: usize) -> Result<ReadChunk<'_, T>, ChunkError> {
        let _step = step(&self.order);
        Ok(ReadChunk { chunk: self.ring.read_chunk(slots)?, order: &self.order })
    }
}

pub(crate) struct ReadChunk<'a, T> {
    chunk: Read<'a, T>,
    order: &'a Order,
}

impl<T> ReadChunk<'_, T> {
    pub(crate) fn as_slices(&self) -> (&[T], &[T]) {
        self.chunk.as_slices()
    }

    pub(crate) fn commit_all(self) {
        let _step = step(self.order);
        self.chunk.commit_all();
    }
}

impl<T> Drop for Consumer<T> {
    fn drop(&mut self) {
        let _step = step(&self.order);
    }
}
