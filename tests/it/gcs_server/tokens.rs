//! The endpoints that give tokens: Google's security token service, the credentials of service accounts, and the refresh of a
//! user's. They are told in full what the real ones are told, and issue tokens of their own that this server accepts.

use super::reply::{Answer, Refusal, Reply};
use chrono::{SecondsFormat, TimeDelta, Utc};
use hyper::header::AUTHORIZATION;
use hyper::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// What the paths of the endpoints begin with. No bucket is called so.
pub(super) const PLACE: &str = "/_tokens/";
/// What the machine of the test proves itself with, and what a user has from logging in.
pub(crate) const SUBJECT: &str = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJyZWxlYXNlIn0.c2lnbmF0dXJlMTIzNDU2Nzg5MA";
/// Google's crate asks for the next token four minutes before the end of one: here, after a second.
const SECONDS: i64 = 241;

pub(super) struct Tokens {
    issued: usize,
    pub(super) newest: usize,
    pub(super) refuses: bool,
    with_parts: BTreeSet<String>,
}

impl Default for Tokens {
    fn default() -> Self {
        Self { issued: 0, newest: usize::MAX, refuses: false, with_parts: BTreeSet::new() }
    }
}

impl Tokens {
    fn issue(&mut self) -> String {
        self.issued += 1;
        format!("ya29.Issued0Here0As0Number-{}", self.issued)
    }

    pub(super) fn accepts(&mut self, token: &str, of_part: bool) -> bool {
        let number = token.strip_prefix("ya29.Issued0Here0As0Number-").and_then(|it| it.parse::<usize>().ok());
        let accepted = number.is_some_and(|it| it <= self.issued && it.saturating_add(self.newest) > self.issued);
        if accepted && of_part {
            self.with_parts.insert(token.to_owned());
        }
        accepted
    }

    pub(super) fn of_parts(&self) -> usize {
        self.with_parts.len()
    }

    pub(super) fn answer(&mut self, path: &str, headers: &HeaderMap, body: &str) -> Answer {
        if self.refuses {
            let error = json!({ "error": "invalid_grant", "error_description": format!("not accepted: {body}") });
            return Ok(Reply::json(StatusCode::BAD_REQUEST, &error));
        }
        let answer = match path.strip_prefix(PLACE).unwrap_or_default() {
            "subject" => json!({ "id": SUBJECT }),
            "sts" => self.exchange(&form(body))?,
            "refresh" => self.refresh(body)?,
            "iam/serviceAccounts/release@p.iam.gserviceaccount.com:generateAccessToken" => {
                self.impersonate(headers, body)?
            }
            other => return Err(Refusal::not_built(format!("the endpoint {other}"))),
        };
        Ok(Reply::json(StatusCode::OK, &answer))
    }

    fn exchange(&mut self, form: &BTreeMap<String, String>) -> Result<Value, Refusal> {
        expect(form.get("grant_type"), "urn:ietf:params:oauth:grant-type:token-exchange")?;
        expect(form.get("subject_token_type"), "urn:ietf:params:oauth:token-type:jwt")?;
        expect(form.get("subject_token"), SUBJECT)?;
        expect(
            form.get("audience"),
            "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
        )?;
        Ok(json!({
            "access_token": self.issue(), "expires_in": SECONDS, "token_type": "Bearer",
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        }))
    }

    fn refresh(&mut self, body: &str) -> Result<Value, Refusal> {
        let sent: Value = serde_json::from_str(body).map_err(|error| Refusal::invalid(error.to_string()))?;
        expect(sent["refresh_token"].as_str(), SUBJECT)?;
        Ok(json!({ "access_token": self.issue(), "expires_in": SECONDS, "token_type": "Bearer" }))
    }

    fn impersonate(&mut self, headers: &HeaderMap, body: &str) -> Result<Value, Refusal> {
        let bearer = headers.get(AUTHORIZATION).and_then(|it| it.to_str().ok()?.strip_prefix("Bearer "));
        if !bearer.is_some_and(|token| self.accepts(token, false)) {
            return Err(Refusal::new(401, "Unauthenticated", "the source's token is none of this server"));
        }
        let sent: Value = serde_json::from_str(body).map_err(|error| Refusal::invalid(error.to_string()))?;
        expect(sent["scope"][0].as_str(), "https://www.googleapis.com/auth/cloud-platform")?;
        let until = (Utc::now() + TimeDelta::seconds(SECONDS)).to_rfc3339_opts(SecondsFormat::Secs, true);
        Ok(json!({ "accessToken": self.issue(), "expireTime": until }))
    }
}

fn form(body: &str) -> BTreeMap<String, String> {
    form_urlencoded::parse(body.as_bytes()).into_owned().collect()
}

fn expect(found: Option<impl AsRef<str>>, wanted: &str) -> Result<(), Refusal> {
    match found {
        Some(found) if found.as_ref() == wanted => Ok(()),
        found => {
            Err(Refusal::invalid(format!("{:?} stands where {wanted} belongs", found.map(|it| it.as_ref().to_owned()))))
        }
    }
}
