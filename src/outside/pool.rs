//! Large things that are made once and used again. What the C library keeps of memory that was given back depends on the sizes,
//! the order and the threads of it, and becomes more the longer a program runs. What lies here is never given back: there is as
//! much of it as was ever used at once.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

/// Things of one kind that nobody uses at the moment.
pub struct Pool<T> {
    make: fn() -> T,
    idle: Mutex<Vec<T>>,
}

/// A thing of a pool, which has it back when this is dropped.
pub struct Pooled<T: 'static> {
    /// There until it is dropped.
    it: Option<T>,
    home: &'static Pool<T>,
}

/// A buffer of a pool.
pub type Buffer = Pooled<Vec<u8>>;

impl<T> Pool<T> {
    /// An empty one.
    pub const fn of(make: fn() -> T) -> Self {
        Self { make, idle: Mutex::new(Vec::new()) }
    }

    /// One that was used before, as it was left, or a new one.
    pub fn take(&'static self) -> Pooled<T> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Pooled { it: Some(idle.unwrap_or_else(self.make)), home: self }
    }
}

impl Pool<Vec<u8>> {
    /// A buffer with nothing in it, of the size with which it was made.
    pub fn buffer(&'static self) -> Buffer {
        let mut buffer = self.take();
        buffer.clear();
        buffer
    }
}

impl<T> Deref for Pooled<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.it.as_ref().expect("it is there until it is dropped")
    }
}

impl<T> DerefMut for Pooled<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.it.as_mut().expect("it is there until it is dropped")
    }
}

impl<T> Drop for Pooled<T> {
    fn drop(&mut self) {
        self.home.idle.lock().unwrap_or_else(PoisonError::into_inner).extend(self.it.take());
    }
}

impl Buffer {
    /// How much more goes into it.
    pub fn room(&self) -> usize {
        self.capacity() - self.len()
    }

    /// Takes from the front of `bytes` what there is room for.
    pub fn fill(&mut self, bytes: &mut &[u8]) {
        let (fits, rest) = bytes.split_at(self.room().min(bytes.len()));
        self.extend_from_slice(fits);
        *bytes = rest;
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// The buffer goes back when the last of those who share the bytes has dropped them.
impl From<Buffer> for Bytes {
    fn from(buffer: Buffer) -> Self {
        Self::from_owner(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_when_nobody_has_its_bytes() {
        static POOL: Pool<Vec<u8>> = Pool::of(|| Vec::with_capacity(10));
        let mut buffer = POOL.buffer();
        let mut text = b"0123456789abc".as_slice();
        buffer.fill(&mut text);
        assert_eq!((&buffer[..], text, buffer.room()), (b"0123456789".as_slice(), b"abc".as_slice(), 0));
        let place = buffer.as_ptr();
        let bytes = Bytes::from(buffer);
        let part = bytes.slice(3..5);
        drop(bytes);
        assert_ne!(POOL.buffer().as_ptr(), place);
        assert_eq!(part, "34");
        drop(part);
        let again = POOL.buffer();
        assert_eq!((again.as_ptr(), again.len(), again.room()), (place, 0, 10));
    }
}
