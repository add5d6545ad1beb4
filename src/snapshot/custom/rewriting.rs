//! An archive as it passes by, with other texts in its table of contents. The order and the numbers of its entries stay, and so
//! does all that comes behind them: in an archive that went through a pipe, no entry says at which byte its data begins.

use super::{CONTENTS_LIMIT, Cursor, CustomError, Entry, Short, Widths};

/// The texts of an entry that are to be others; what is none stays.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Rewritten {
    /// In place of its definition.
    pub definition: Option<Vec<u8>>,
    /// In place of its owner.
    pub owner: Option<Vec<u8>>,
}

/// Rewrites an archive as it is pushed.
pub struct Rewriting<F> {
    rewrite: F,
    widths: Widths,
    at: At,
    /// What has come and could not be read yet.
    waiting: Vec<u8>,
}

enum At {
    Head,
    /// So many entries of the table of contents are still to come.
    Contents(u64),
    Rest,
}

impl<F: FnMut(&Entry<'_>) -> Rewritten> Rewriting<F> {
    /// `rewrite` says of each entry what is to be another.
    pub fn new(rewrite: F) -> Self {
        Self { rewrite, widths: Widths::default(), at: At::Head, waiting: Vec::new() }
    }

    /// Whether all that is still to come passes as it is.
    pub fn is_over(&self) -> bool {
        matches!(self.at, At::Rest)
    }

    /// Gives what can go on of all that has come.
    ///
    /// # Errors
    /// It is no archive of a version that is known.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<u8>, CustomError> {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.extend_from_slice(bytes);
        let (mut from, mut to) = (&waiting[..], Vec::new());
        while !self.is_over() {
            let mut cursor = Cursor { bytes: from, widths: self.widths };
            match self.step(&mut cursor, &mut to) {
                Ok(()) => from = cursor.bytes,
                Err(Short::More) if from.len() < CONTENTS_LIMIT => break,
                Err(Short::More) => return Err(CustomError::Broken("its table of contents has no end")),
                Err(Short::Wrong(error)) => return Err(error),
            }
        }
        if self.is_over() {
            to.extend_from_slice(from);
        } else {
            self.waiting = from.to_vec();
        }
        Ok(to)
    }

    /// Passes one whole thing, or nothing.
    fn step(&mut self, from: &mut Cursor<'_>, to: &mut Vec<u8>) -> Result<(), Short> {
        let before = from.bytes;
        let left = match self.at {
            At::Head => {
                let entries = from.head()?;
                self.widths = from.widths;
                to.extend_from_slice(&before[..before.len() - from.bytes.len()]);
                entries
            }
            At::Contents(left) => {
                let (entry, places) = from.entry_with_places()?;
                let Rewritten { definition, owner } = (self.rewrite)(&entry);
                let mut done = 0;
                for (text, place) in [(definition, places.definition), (owner, places.owner)] {
                    let Some(text) = text else { continue };
                    to.extend_from_slice(&before[done..place.start]);
                    self.widths.write(&text, to);
                    done = place.end;
                }
                to.extend_from_slice(&before[done..before.len() - from.bytes.len()]);
                left - 1
            }
            At::Rest => unreachable!("the rest passes as it is"),
        };
        self.at = if left == 0 { At::Rest } else { At::Contents(left) };
        Ok(())
    }
}
