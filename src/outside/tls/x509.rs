//! What we look at in a certificate ourselves: names, validity, key, and how it is signed. Chains are verified by webpki, which
//! neither tells these nor reads version 1, in which PostgreSQL's own manual makes certificates.

use std::net::IpAddr;

use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};
use sha2::{Digest as _, Sha256, Sha384, Sha512};

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;
const UTC_TIME: u8 = 0x17;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const DNS_NAME: u8 = 0x82;
const IP_ADDRESS: u8 = 0x87;
/// 2.5.4.3
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// 2.5.29.17
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
/// 2.5.29.19
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
const BOOLEAN: u8 = 0x01;
/// 1.2.840.113549.1.1, of which the next number says what is signed and how.
const PKCS_1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
/// 1.2.840.10045.4
const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04];

/// The parts of a certificate, each as it stands in it.
#[derive(Debug)]
pub(super) struct Certificate<'a> {
    /// Counted from 1.
    pub(super) version: u8,
    /// What is signed.
    pub(super) signed: &'a [u8],
    /// How: the content of an AlgorithmIdentifier.
    pub(super) algorithm: &'a [u8],
    pub(super) signature: &'a [u8],
    pub(super) issuer: &'a [u8],
    pub(super) subject: &'a [u8],
    pub(super) not_before: DateTime<Utc>,
    pub(super) not_after: DateTime<Utc>,
    /// The whole SubjectPublicKeyInfo.
    pub(super) key_info: &'a [u8],
    /// What kind of key: the content of an AlgorithmIdentifier.
    pub(super) key_algorithm: &'a [u8],
    pub(super) key: &'a [u8],
    /// Names of hosts that it is for.
    pub(super) dns_names: Vec<&'a [u8]>,
    /// Addresses that it is for.
    pub(super) addresses: Vec<IpAddr>,
    /// Whether it may issue others. The first version cannot say that it may not.
    pub(super) is_authority: bool,
}

/// One value after the other.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The next value: its tag, its content, and all of it.
    fn next(&mut self) -> Option<(u8, &'a [u8], &'a [u8])> {
        let all = self.0;
        let (tag, first) = (*all.first()?, *all.get(1)?);
        let (length, header) = match first {
            short @ 0..=0x7f => (usize::from(short), 2),
            // Nothing in a certificate is longer than three bytes can say.
            long @ 0x81..=0x83 => {
                let count = usize::from(long & 0x7f);
                let bytes = all.get(2..2 + count)?;
                (bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), 2 + count)
            }
            _ => return None,
        };
        let whole = all.get(..header + length)?;
        self.0 = &all[header + length..];
        Some((tag, &whole[header..], whole))
    }

    /// The content of the next value, which must be of this tag.
    fn enter(&mut self, tag: u8) -> Option<Reader<'a>> {
        self.next().filter(|(found, ..)| *found == tag).map(|(_, content, _)| Reader(content))
    }
}

impl<'a> Certificate<'a> {
    /// Reads the DER of a certificate; none if it is not one.
    pub(super) fn read(der: &'a [u8]) -> Option<Self> {
        let mut outer = Reader(der).enter(SEQUENCE)?;
        let (_, content, signed) = outer.next()?;
        let algorithm = outer.enter(SEQUENCE)?.0;
        let signature = bits(outer.enter(BIT_STRING)?.0)?;
        let mut inner = Reader(content);
        // The version is left out where it is the first.
        let version = match inner.0.first() {
            Some(&VERSION) => inner.enter(VERSION)?.next()?.1.first()?.checked_add(1)?,
            _ => 1,
        };
        let (_serial, _algorithm) = (inner.next()?, inner.next()?);
        let issuer = inner.next()?.2;
        let mut validity = inner.enter(SEQUENCE)?;
        let (not_before, not_after) = (time(validity.next()?)?, time(validity.next()?)?);
        let subject = inner.next()?.2;
        let key_info = inner.next()?.2;
        let mut info = Reader(key_info).enter(SEQUENCE)?;
        let key_algorithm = info.enter(SEQUENCE)?.0;
        let key = bits(info.enter(BIT_STRING)?.0)?;
        let Extensions { dns_names, addresses, is_authority } = extensions(inner);
        Some(Self {
            version,
            signed,
            algorithm,
            signature,
            issuer,
            subject,
            not_before,
            not_after,
            key_info,
            key_algorithm,
            key,
            dns_names,
            addresses,
            is_authority: is_authority || version < 3,
        })
    }

    /// Whether it says that it issued itself, as the certificate of an authority at the top does.
    pub(super) fn is_self_issued(&self) -> bool {
        self.issuer == self.subject
    }

    /// The first common name of the subject.
    pub(super) fn common_name(&self) -> Option<&'a [u8]> {
        common_name(self.subject)
    }

    /// Who it is about, in a word for messages.
    pub(super) fn called(&self) -> String {
        called(self.subject)
    }

    /// Who issued it, in a word for messages.
    pub(super) fn issuer_called(&self) -> String {
        called(self.issuer)
    }
}

fn called(name: &[u8]) -> String {
    common_name(name).map_or_else(|| "nameless".to_owned(), |it| String::from_utf8_lossy(it).into_owned())
}

/// A name is a sequence of sets of pairs.
fn common_name(name: &[u8]) -> Option<&[u8]> {
    let mut sets = Reader(name).enter(SEQUENCE)?;
    while let Some((_, set, _)) = sets.next() {
        let mut pair = Reader(set).enter(SEQUENCE)?;
        if pair.next()?.1 == COMMON_NAME {
            return Some(pair.next()?.1);
        }
    }
    None
}

#[derive(Default)]
struct Extensions<'a> {
    dns_names: Vec<&'a [u8]>,
    addresses: Vec<IpAddr>,
    is_authority: bool,
}

/// Behind the key: unique identifiers that nobody uses, then the extensions.
fn extensions(mut rest: Reader<'_>) -> Extensions<'_> {
    let mut found = Extensions::default();
    while let Some((tag, content, _)) = rest.next() {
        let listed = if tag == EXTENSIONS { Reader(content).enter(SEQUENCE) } else { None };
        let mut listed = listed.unwrap_or(Reader(&[]));
        while let Some((_, extension, _)) = listed.next() {
            let mut parts = Reader(extension);
            let Some((_, oid, _)) = parts.next() else { continue };
            // Between the name of the extension and its value may stand whether it is critical.
            let value = std::iter::from_fn(|| parts.next()).last().and_then(|(_, it, _)| Reader(it).enter(SEQUENCE));
            match (oid, value) {
                (SUBJECT_ALT_NAME, Some(entries)) => alternative_names(entries, &mut found),
                (BASIC_CONSTRAINTS, Some(mut it)) => {
                    found.is_authority = it.next().is_some_and(|(tag, value, _)| tag == BOOLEAN && value != [0]);
                }
                _ => {}
            }
        }
    }
    found
}

fn alternative_names<'a>(mut entries: Reader<'a>, found: &mut Extensions<'a>) {
    while let Some((tag, entry, _)) = entries.next() {
        match tag {
            DNS_NAME => found.dns_names.push(entry),
            IP_ADDRESS => found.addresses.extend(address(entry)),
            _ => {}
        }
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    }
}

/// The bytes of a BIT STRING, which says first how many bits of its last byte do not count.
fn bits(content: &[u8]) -> Option<&[u8]> {
    content.split_first().filter(|(unused, _)| **unused == 0).map(|(_, bytes)| bytes)
}

/// `YYMMDDHHMMSSZ`, where 50 is 1950, or `YYYYMMDDHHMMSSZ`.
fn time((tag, content, _): (u8, &[u8], &[u8])) -> Option<DateTime<Utc>> {
    let text = std::str::from_utf8(content).ok()?.strip_suffix('Z').filter(|it| it.is_ascii())?;
    let century = match tag {
        UTC_TIME if text >= "50" => "19",
        UTC_TIME => "20",
        _ => "",
    };
    let text = format!("{century}{text}");
    let part = |range: std::ops::Range<usize>| text.get(range)?.parse::<u32>().ok();
    let date = NaiveDate::from_ymd_opt(i32::try_from(part(0..4)?).ok()?, part(4..6)?, part(6..8)?)?;
    let time: NaiveDateTime = date.and_hms_opt(part(8..10)?, part(10..12)?, part(12..14)?)?;
    Some(time.and_utc())
}

/// The hash of a certificate that SCRAM is bound to, by RFC 5929 `tls-server-end-point`: with the hash of its signature, and SHA-256
/// in place of MD5 and SHA-1. None where the signature has no hash, as Ed25519's.
pub(super) fn end_point(der: &[u8]) -> Option<Vec<u8>> {
    let algorithm = Certificate::read(der)?.algorithm;
    let oid = Reader(algorithm).next()?.1;
    let hash = match (oid.strip_prefix(PKCS_1), oid.strip_prefix(ECDSA)) {
        (Some([4 | 5 | 11]), _) | (_, Some([1] | [3, 2])) => Sha256::digest(der).to_vec(),
        (Some([12]), _) | (_, Some([3, 3])) => Sha384::digest(der).to_vec(),
        (Some([13]), _) | (_, Some([3, 4])) => Sha512::digest(der).to_vec(),
        _ => return None,
    };
    Some(hash)
}
