//! Encryption on our side of the store, with [age](https://age-encryption.org): recipients, who are public, and identities, which
//! are secret and stay in their file. The one file that speaks to `age`.

use std::fmt;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use age::stream::{StreamReader, StreamWriter};
use age::x25519;

/// Somebody who can read what is encrypted: `age1…`, as `age-keygen` prints it.
#[derive(Clone)]
pub struct Recipient(x25519::Recipient);

/// Why a text is no recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecipientError {
    /// A secret stands where something public belongs.
    #[error("an identity, which is secret, stands where a recipient belongs")]
    Identity,
    /// Anything else.
    #[error("`age1…`, the public key that `age-keygen` prints, is the only kind of recipient")]
    Unknown,
}

impl FromStr for Recipient {
    type Err = RecipientError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(recipient) => Ok(Self(recipient)),
            Err(_) if text.to_ascii_uppercase().contains("SECRET-KEY") => Err(RecipientError::Identity),
            Err(_) => Err(RecipientError::Unknown),
        }
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recipient({self})")
    }
}

/// Encrypting at work. It ends with [`Encrypting::finish`]; without it, what came out is cut off, and is found to be.
pub struct Encrypting {
    stream: StreamWriter<Out>,
    out: Out,
}

/// What came out and was not taken yet.
#[derive(Clone, Default)]
struct Out(Arc<Mutex<Vec<u8>>>);

impl Out {
    fn hand_over(&self, to: &mut Vec<u8>) {
        to.append(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Encrypting {
    /// To all of `recipients`, of whom there is at least one: each can read it alone.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn to(recipients: &[Recipient]) -> io::Result<Self> {
        let all = recipients.iter().map(|it| &it.0 as &dyn age::Recipient);
        let out = Out::default();
        let encryptor = age::Encryptor::with_recipients(all).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self { stream: encryptor.wrap_output(out.clone())?, out })
    }

    /// Takes in `bytes`, and adds what is ready to `ready`.
    ///
    /// # Errors
    /// None in practice: it writes to memory.
    pub fn write(&mut self, bytes: &[u8], ready: &mut Vec<u8>) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.out.hand_over(ready);
        Ok(())
    }

    /// Adds the rest to `ready`.
    ///
    /// # Errors
    /// None in practice: it writes to memory.
    pub fn finish(self, ready: &mut Vec<u8>) -> io::Result<()> {
        self.stream.finish()?;
        self.out.hand_over(ready);
        Ok(())
    }
}

/// Why a file gives no identity. What stands in it is shown nowhere.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum IdentityError {
    /// The file itself.
    #[error("the identity file {} cannot be read", file.display())]
    #[diagnostic(code("identity.unreadable"), help("Correct MIGRATE_AGE_IDENTITY_FILE."))]
    Unreadable {
        /// As named.
        file: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A line of it.
    #[error("{}:{line}: this is no identity", file.display())]
    #[diagnostic(
        code("identity.line"),
        help("The file holds lines of `AGE-SECRET-KEY-1…`, as `age-keygen` writes them, and comments after `#`.")
    )]
    Line {
        /// As named.
        file: PathBuf,
        /// From 1.
        line: usize,
    },
    /// There is nothing in it.
    #[error("{} holds no identity", file.display())]
    #[diagnostic(
        code("identity.empty"),
        help("Make one with `age-keygen -o FILE`. Only the one that was encrypted to helps.")
    )]
    Empty {
        /// As named.
        file: PathBuf,
    },
}

/// What encrypted archives can be read with.
pub struct Identities {
    file: PathBuf,
    keys: Vec<x25519::Identity>,
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identities({})", self.file.display())
    }
}

impl Identities {
    /// Reads a file as `age-keygen` writes it.
    ///
    /// # Errors
    /// It cannot be read, or holds something else.
    pub fn read(file: &Path) -> Result<Self, IdentityError> {
        let unreadable = |source| IdentityError::Unreadable { file: file.into(), source };
        let text = std::fs::read_to_string(file).map_err(unreadable)?;
        let mut keys = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                let wrong = |_| IdentityError::Line { file: file.into(), line: at + 1 };
                keys.push(line.parse().map_err(wrong)?);
            }
        }
        if keys.is_empty() {
            return Err(IdentityError::Empty { file: file.into() });
        }
        Ok(Self { file: file.into(), keys })
    }

    /// The file that they are from.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Whether one of them is one of `recipients`.
    #[must_use]
    pub fn open_for(&self, recipients: &[String]) -> bool {
        self.keys.iter().any(|key| recipients.contains(&key.to_public().to_string()))
    }

    /// What `from` holds, decrypted as it is read. A cut off or changed text is an error of reading.
    ///
    /// # Errors
    /// It is not of age, or for somebody else.
    pub fn decrypt<R: Read>(&self, from: R) -> io::Result<StreamReader<R>> {
        let wrong = |error: age::DecryptError| io::Error::new(io::ErrorKind::InvalidData, error.to_string());
        let all = self.keys.iter().map(|it| it as &dyn age::Identity);
        age::Decryptor::new(from).map_err(wrong)?.decrypt(all).map_err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use age::secrecy::ExposeSecret;

    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("identity.txt");
        std::fs::write(&path, text).expect("ours");
        (folder, path)
    }

    #[test]
    fn what_is_encrypted_to_two_can_be_read_by_either_and_by_nobody_else() {
        let keys = [x25519::Identity::generate(), x25519::Identity::generate(), x25519::Identity::generate()];
        let recipients =
            [&keys[0], &keys[1]].map(|key| key.to_public().to_string().parse::<Recipient>().expect("a key"));
        let content: Vec<u8> = (0..200_000u32).map(|n| (n % 251) as u8).collect();
        let mut encrypting = Encrypting::to(&recipients).expect("random numbers");
        let mut stored = Vec::new();
        encrypting.write(&content[..70_000], &mut stored).expect("memory");
        encrypting.write(&content[70_000..], &mut stored).expect("memory");
        encrypting.finish(&mut stored).expect("memory");
        let names = recipients.map(|it| it.to_string());
        for (at, key) in keys.iter().enumerate() {
            let (_folder, path) = file(&format!("# created: today\n{}\n", key.to_string().expose_secret()));
            let identities = Identities::read(&path).expect("an identity");
            assert_eq!((identities.open_for(&names), identities.file()), (at < 2, path.as_path()));
            let read = |stored: &[u8]| {
                let mut back = Vec::new();
                identities.decrypt(stored)?.read_to_end(&mut back).map(|_| back)
            };
            assert_eq!(read(&stored).is_ok_and(|back| back == content), at < 2);
            let mut flipped = stored.clone();
            flipped[stored.len() / 2] ^= 1;
            assert!(read(&stored[..stored.len() - 1]).is_err() && read(&flipped).is_err());
        }
    }

    #[test]
    fn a_bad_file_is_named_with_its_line_and_without_what_stands_there() {
        let key = x25519::Identity::generate();
        let secret = key.to_string().expose_secret().to_owned();
        let check = |text: &str, says: &str| {
            let (_folder, path) = file(text);
            let error = Identities::read(&path).expect_err(says);
            let said = format!("{error} {error:?}");
            assert!(said.contains(says) && said.contains("identity.txt") && !said.contains(&secret[16..40]), "{said}");
        };
        check(&format!("# one\n{secret}x\n"), "identity.txt:2: this is no identity");
        check(&format!("{secret}\nage1xyz\n"), "identity.txt:2: this is no identity");
        check("# nothing\n\n", "holds no identity");
        assert!(Identities::read(Path::new("/nowhere/id")).is_err());
    }

    #[test]
    fn a_recipient_is_public() {
        let key = x25519::Identity::generate();
        assert!(key.to_public().to_string().parse::<Recipient>().is_ok());
        let secret = key.to_string().expose_secret().to_owned();
        assert_eq!(secret.parse::<Recipient>().err(), Some(RecipientError::Identity));
        assert_eq!("age1xyz".parse::<Recipient>().err(), Some(RecipientError::Unknown));
        assert_eq!("ssh-ed25519 AAAA".parse::<Recipient>().err(), Some(RecipientError::Unknown));
    }
}
