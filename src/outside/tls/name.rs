//! Whether a certificate is for a host, as libpq decides it since version 15 (`pq_verify_peer_name_matches_certificate`).

use std::net::IpAddr;

use super::x509::Certificate;

/// The alternative names count first; the common name only where there is none of the sort that the host is of.
pub(super) fn is_for(certificate: &Certificate<'_>, host: &str) -> bool {
    let address: Option<IpAddr> = host.parse().ok();
    let matches = |name: &&[u8]| name_matches(name, host);
    if certificate.dns_names.iter().any(matches) || address.is_some_and(|it| certificate.addresses.contains(&it)) {
        return true;
    }
    let silent = match address {
        Some(_) => certificate.addresses.is_empty(),
        None => certificate.dns_names.is_empty(),
    };
    silent && certificate.common_name().as_ref().is_some_and(matches)
}

/// For whom it is, for messages.
pub(super) fn names(certificate: &Certificate<'_>) -> String {
    let names = certificate.dns_names.iter().map(|it| String::from_utf8_lossy(it).into_owned());
    let mut names: Vec<String> = names.chain(certificate.addresses.iter().map(IpAddr::to_string)).collect();
    if names.is_empty() {
        names.push(certificate.called());
    }
    names.join(", ")
}

/// Letters of either case are the same, and `*.` at the beginning stands for one label.
fn name_matches(name: &[u8], host: &str) -> bool {
    // A zero byte would end the name for others, as in `db.example.org\0.evil.org`.
    let Some(name) = std::str::from_utf8(name).ok().filter(|it| !it.contains('\0')) else { return false };
    match name.strip_prefix("*.").filter(|rest| !rest.is_empty()) {
        None => name.eq_ignore_ascii_case(host),
        Some(rest) => {
            let label_and_rest = host.split_once('.').filter(|(label, _)| !label.is_empty());
            name.eq_ignore_ascii_case(host) || label_and_rest.is_some_and(|(_, it)| it.eq_ignore_ascii_case(rest))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_one_label() {
        let yes = [("db.example.org", "DB.example.ORG"), ("*.example.org", "db.example.org"), ("10.0.0.1", "10.0.0.1")];
        for (name, host) in yes {
            assert!(name_matches(name.as_bytes(), host), "{name} {host}");
        }
        let no = [
            ("db.example.org", "db.example.org.evil"),
            ("*.example.org", "example.org"),
            ("*.example.org", ".example.org"),
            ("*.example.org", "a.b.example.org"),
            ("*", "db"),
            ("*.", "db."),
            ("d*.example.org", "db.example.org"),
            ("db.example.org\0.evil", "db.example.org"),
            ("", "db"),
        ];
        for (name, host) in no {
            assert!(!name_matches(name.as_bytes(), host), "{name} {host}");
        }
    }
}
