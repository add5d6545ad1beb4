//! The fields of the format, read from the front of what has come.

use std::ops::Range;

use super::{CustomError, Entry, KNOWN, MAGIC};

/// Nothing could be read.
pub(super) enum Short {
    /// More has to come first.
    More,
    Wrong(CustomError),
}

/// Bytes of an integer and of an offset, and the format's version.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Widths {
    int: usize,
    offset: usize,
    minor: u8,
}

impl Widths {
    /// A text as the format has it.
    pub(super) fn write(self, text: &[u8], to: &mut Vec<u8>) {
        to.push(0);
        to.extend(text.len().to_le_bytes().into_iter().chain(std::iter::repeat(0)).take(self.int));
        to.extend_from_slice(text);
    }
}

/// Where, in the bytes of an entry, the texts lie that name roles, each with its length before it.
pub(super) struct Places {
    pub(super) definition: Range<usize>,
    pub(super) owner: Range<usize>,
}

/// Reads from the front of what has come.
pub(super) struct Cursor<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) widths: Widths,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Short> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or(Short::More)?;
        self.bytes = rest;
        Ok(taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Short> {
        Ok(self.take(1)?[0])
    }

    /// A sign, and the bytes with the least first.
    pub(super) fn int(&mut self) -> Result<i64, Short> {
        let negative = self.byte()? != 0;
        let value = self.take(self.widths.int)?.iter().rev().fold(0i64, |sum, byte| (sum << 8) | i64::from(*byte));
        Ok(if negative { -value } else { value })
    }

    pub(super) fn length(&mut self) -> Result<usize, Short> {
        usize::try_from(self.int()?).map_err(|_| Short::Wrong(CustomError::Broken("it has a length below zero")))
    }

    /// A text; -1 for its length is none.
    fn text(&mut self) -> Result<Option<&'a [u8]>, Short> {
        match self.int()? {
            length if length < 0 => Ok(None),
            length => Ok(Some(self.take(usize::try_from(length).unwrap_or(usize::MAX))?)),
        }
    }

    fn texts(&mut self, count: usize) -> Result<(), Short> {
        (0..count).try_for_each(|_| self.text().map(drop))
    }

    /// The head; gives the number of entries of the table of contents.
    pub(super) fn head(&mut self) -> Result<u64, Short> {
        let known = self.bytes.len().min(MAGIC.len());
        if self.bytes[..known] != MAGIC[..known] {
            return Err(Short::Wrong(CustomError::NoArchive));
        }
        self.take(MAGIC.len())?;
        let (major, minor, _revision) = (self.byte()?, self.byte()?, self.byte()?);
        if major != 1 || !KNOWN.contains(&minor) {
            return Err(Short::Wrong(CustomError::Version { major, minor }));
        }
        self.widths = Widths { int: self.byte()?.into(), offset: self.byte()?.into(), minor };
        if !(1..=8).contains(&self.widths.int) {
            return Err(Short::Wrong(CustomError::Broken("its integers have an impossible width")));
        }
        self.byte()?; // the format: custom
        if minor >= 15 {
            self.byte().map(drop)?
        } else {
            self.int().map(drop)?
        } // the compression
        for _ in 0..7 {
            self.int()?; // when it was made
        }
        self.texts(3)?; // the database, the server's version, pg_dump's version
        u64::try_from(self.int()?).map_err(|_| Short::Wrong(CustomError::Broken("its table of contents is no list")))
    }

    /// An entry of the table of contents.
    pub(super) fn entry(&mut self) -> Result<Entry<'a>, Short> {
        self.entry_with_places().map(|(entry, _)| entry)
    }

    pub(super) fn entry_with_places(&mut self) -> Result<(Entry<'a>, Places), Short> {
        let length = self.bytes.len();
        let id = self.int()?;
        self.int()?; // whether it has data
        self.texts(2)?; // the oids of its catalog and of itself
        let (tag, kind) = (self.text()?.unwrap_or_default(), self.text()?.unwrap_or_default());
        self.int()?; // the section
        let definition_at = length - self.bytes.len();
        let definition = self.text()?.unwrap_or_default();
        let definition_at = definition_at..length - self.bytes.len();
        self.texts(1)?; // how to drop it
        let (copy, schema) = (self.text()?.unwrap_or_default(), self.text()?.unwrap_or_default());
        self.texts(2)?; // its tablespace, its access method
        if self.widths.minor >= 16 {
            self.int()?; // the kind of relation
        }
        let owner_at = length - self.bytes.len();
        let owner = self.text()?.unwrap_or_default();
        let owner_at = owner_at..length - self.bytes.len();
        self.texts(1)?; // a leftover of WITH OIDS
        while self.text()?.is_some() {} // what it depends on
        self.take(1 + self.widths.offset)?;
        let entry = Entry { id, kind, schema, tag, definition, copy, owner };
        Ok((entry, Places { definition: definition_at, owner: owner_at }))
    }
}
