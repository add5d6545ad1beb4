//! An object of unknown size on its way into the store, in parts.

use object_store::{MultipartUpload, PutPayload};
use tokio::task::JoinSet;

use crate::crash;

use super::StoreError;
use super::pieces::Pieces;
use super::trouble::Who;

/// Parts in flight for one upload, beside the one being filled.
const IN_FLIGHT: usize = 2;

/// An upload under way. It must be ended by [`Upload::finish`] or [`Upload::abort`]: dropping it leaves parts behind that
/// cost money.
pub struct Upload {
    parts: Box<dyn MultipartUpload>,
    who: Who,
    key: String,
    part: usize,
    filling: Pieces,
    filled: usize,
    flying: JoinSet<object_store::Result<()>>,
    sent: usize,
}

impl Upload {
    /// In parts of `part` bytes.
    pub(super) fn of(parts: Box<dyn MultipartUpload>, who: Who, key: &str, part: usize) -> Self {
        let (filling, flying) = (Pieces::new(), JoinSet::new());
        Self { parts, who, key: key.into(), part, filling, filled: 0, flying, sent: 0 }
    }

    /// Adds bytes. Waits while enough parts are in flight, so that a slow store slows the writer down.
    ///
    /// # Errors
    /// An earlier part was refused.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<(), StoreError> {
        while !bytes.is_empty() {
            let room = part_size(self.part, self.sent) - self.filled;
            let (fits, rest) = bytes.split_at(room.min(bytes.len()));
            self.filling.add(fits);
            (self.filled, bytes) = (self.filled + fits.len(), rest);
            if self.filled == part_size(self.part, self.sent) {
                self.send().await?;
            }
        }
        Ok(())
    }

    async fn send(&mut self) -> Result<(), StoreError> {
        while self.flying.len() >= IN_FLIGHT {
            self.land().await?;
        }
        let payload: PutPayload = self.filling.take().into_iter().collect();
        self.filled = 0;
        self.sent += 1;
        crash::point("upload part before", &self.key);
        self.flying.spawn(self.parts.put_part(payload));
        Ok(())
    }

    async fn land(&mut self) -> Result<(), StoreError> {
        match self.flying.join_next().await {
            Some(Ok(done)) => {
                crash::point("upload part after", &self.key);
                done.map_err(self.who.io("write", &self.key))
            }
            Some(Err(died)) => std::panic::resume_unwind(died.into_panic()),
            None => Ok(()),
        }
    }

    /// Sends what is left and makes the object appear.
    ///
    /// # Errors
    /// A part or the completion was refused; the upload is aborted.
    pub async fn finish(mut self) -> Result<(), StoreError> {
        match self.complete().await {
            Ok(()) => Ok(()),
            Err(error) => {
                self.abort().await;
                Err(error)
            }
        }
    }

    async fn complete(&mut self) -> Result<(), StoreError> {
        if self.filled > 0 || self.sent == 0 {
            self.send().await?;
        }
        while !self.flying.is_empty() {
            self.land().await?;
        }
        crash::point("upload complete before", &self.key);
        self.parts.complete().await.map_err(self.who.io("write", &self.key))?;
        crash::point("upload complete after", &self.key);
        Ok(())
    }

    /// Gives the upload up. What the store says to that is not passed on: the error that led here matters more.
    pub async fn abort(mut self) {
        self.flying.shutdown().await;
        if let Err(error) = self.parts.abort().await {
            tracing::warn!(key = self.key, %error, "an aborted upload may have left parts behind");
        }
    }
}

/// Parts are as large as whoever knows about how much is coming said, `first` bytes. Where it is far more, they grow, so that
/// 10,000 of them (the store's limit) hold a terabyte at least: memory is then the smaller trouble.
fn part_size(first: usize, sent: usize) -> usize {
    match sent {
        0..6_000 => first,
        6_000..8_000 => first.max(40 << 20),
        _ => first.max(512 << 20),
    }
}
