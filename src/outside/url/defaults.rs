//! What counts where a URL is silent: the role, and libpq's variables about encryption.

use std::collections::BTreeMap;

/// libpq's variables about how a session is protected, with the parameter of a URL that each stands for. One of them that was set
/// to insist on something must not be lost on the way.
pub const VARIABLES: [(&str, &str); 13] = [
    ("PGSSLMODE", "sslmode"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLKEY", "sslkey"),
    ("PGSSLCRL", "sslcrl"),
    ("PGSSLCRLDIR", "sslcrldir"),
    ("PGSSLMINPROTOCOLVERSION", "ssl_min_protocol_version"),
    ("PGSSLMAXPROTOCOLVERSION", "ssl_max_protocol_version"),
    ("PGSSLNEGOTIATION", "sslnegotiation"),
    ("PGCHANNELBINDING", "channel_binding"),
    ("PGGSSENCMODE", "gssencmode"),
    ("PGREQUIREAUTH", "require_auth"),
    ("PGREQUIREPEER", "requirepeer"),
];

/// What counts where a URL is silent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Defaults {
    /// The role; libpq takes the operating system's user.
    pub user: Option<String>,
    /// The folder with `.postgresql/root.crt` and its like.
    pub home: Option<String>,
    /// Parameters by the variable that they come from.
    pub(super) variables: BTreeMap<String, String>,
    pub(super) system_file: Option<String>,
}

impl Defaults {
    /// From an environment. An empty variable is one that is not set.
    #[must_use]
    pub fn of(env: &BTreeMap<String, String>) -> Self {
        let get = |name: &str| env.get(name).filter(|it| !it.is_empty()).cloned();
        let variables = VARIABLES.iter().filter_map(|(variable, _)| Some(((*variable).to_owned(), get(variable)?)));
        Self {
            user: ["PGUSER", "USER", "LOGNAME"].iter().find_map(|it| get(it)),
            home: get("HOME"),
            variables: variables.collect(),
            system_file: get("SSL_CERT_FILE"),
        }
    }
}
