//! Where a remote is and how to reach it: `grpc://user:token@host:port/catalog?timeout=30s&connect_timeout=5s`.

use std::{collections::HashMap, fmt, time::Duration};

use grizzly_provider::{Error, ErrorKind, Result};
use url::Url;

use crate::client::ConnectOptions;

/// An address with its settings. Its text and debug output hold no secrets.
#[derive(Clone)]
pub struct Location {
    url: String,
    scheme: String,
    user: Option<String>,
    secret: Option<String>,
    path: Option<String>,
    connect_timeout: Option<Duration>,
    timeout: Option<Duration>,
    /// The whole address, secrets included.
    full: Url,
}

impl Location {
    /// Reads an address. The part before `@` may hold a user and a password or token, the path names a catalog or
    /// database, and the query sets `connect_timeout` and `timeout`, in seconds or as `500ms`, `30s`, `2m`.
    pub fn parse(text: &str) -> Result<Self> {
        let full =
            Url::parse(text).map_err(|error| invalid("the address of the remote cannot be read").with_source(error))?;
        let mut bare = full.clone();
        bare.set_path("");
        bare.set_query(None);
        bare.set_fragment(None);
        // Only addresses without a host have no user.
        let _ = bare.set_username("").and_then(|()| bare.set_password(None));
        let part = |text: &str| Some(decoded(text)).filter(|text| !text.is_empty());
        let mut location = Self {
            url: bare.as_str().trim_end_matches('/').to_owned(),
            scheme: full.scheme().to_owned(),
            user: part(full.username()),
            secret: full.password().and_then(part),
            path: part(full.path().trim_matches('/')),
            connect_timeout: None,
            timeout: None,
            full: full.clone(),
        };
        for (key, value) in full.query_pairs() {
            location.set(&key, &value)?;
        }
        Ok(location)
    }

    /// Applies the options of a CREATE EXTERNAL TABLE that begin with `prefix` and a dot, and returns the value of
    /// `table`, which is one of them. What begins otherwise is refused.
    pub fn apply(&mut self, prefix: &str, options: &HashMap<String, String>) -> Result<Option<String>> {
        let mut table = None;
        for (key, value) in options {
            match key.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.')) {
                Some("table") => table = Some(value.clone()),
                Some(setting) => self.set(setting, value)?,
                None => return Err(invalid(&format!("{}: unknown option {key}, expected {prefix}.…", self.url))),
            }
        }
        Ok(table)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        match key {
            "connect_timeout" => self.connect_timeout = Some(self.duration(key, value)?),
            "timeout" => self.timeout = Some(self.duration(key, value)?),
            "token" | "password" => self.secret = Some(value.to_owned()),
            "user" => self.user = Some(value.to_owned()),
            "catalog" => self.path = Some(value.to_owned()),
            other => {
                let known = "connect_timeout, timeout, user, password, token, catalog";
                return Err(invalid(&format!("{}: unknown setting {other}, expected {known}", self.url)));
            }
        }
        Ok(())
    }

    fn duration(&self, key: &str, value: &str) -> Result<Duration> {
        let digits = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
        let (number, unit) = value.split_at(digits);
        let millis = match unit {
            "ms" => Some(1_u64),
            "" | "s" => Some(1_000),
            "m" => Some(60_000),
            _ => None,
        };
        let millis = millis.zip(number.parse::<u64>().ok()).and_then(|(unit, number)| unit.checked_mul(number));
        let millis = millis.filter(|millis| *millis > 0);
        let wrong = || invalid(&format!("{}: {key}={value} is no time like 500ms, 30s or 2m", self.url));
        millis.map(Duration::from_millis).ok_or_else(wrong)
    }

    /// The address without user, path and settings.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What stands before `://`.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// The catalog or database.
    pub fn path(&self) -> Option<&str> {
        self.path.as_deref()
    }

    /// The whole address as it was given, secrets included.
    pub fn full(&self) -> &Url {
        &self.full
    }

    /// The user and the password or token.
    pub fn credentials(&self) -> (Option<&str>, Option<&str>) {
        (self.user.as_deref(), self.secret.as_deref())
    }

    /// How long connecting may take. Default 10 seconds.
    pub fn connect_timeout(&self) -> Duration {
        self.connect_timeout.unwrap_or(ConnectOptions::default().connect_timeout)
    }

    /// How long to wait for each reply and each batch. Default 5 minutes.
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout.or(ConnectOptions::default().timeout)
    }

    /// The settings as a Flight SQL connection takes them.
    pub(super) fn connect_options(&self) -> ConnectOptions {
        ConnectOptions {
            // `grpc://token@host` is as good as `grpc://user:token@host`.
            token: self.secret.clone().or_else(|| self.user.clone()),
            connect_timeout: self.connect_timeout(),
            timeout: self.timeout(),
            ..ConnectOptions::default()
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Location").field(&self.url).finish()
    }
}

fn invalid(message: &str) -> Error {
    Error::new(ErrorKind::Invalid, message)
}

/// With `%20` and the like replaced by what they stand for.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.bytes().next() {
        let escaped =
            (first == b'%').then(|| rest.get(1..3).and_then(|hex| u8::from_str_radix(hex, 16).ok())).flatten();
        let (byte, length) = escaped.map_or((first, 1), |byte| (byte, 3));
        bytes.push(byte);
        match rest.get(length..) {
            Some(after) => rest = after,
            // Within a character of several bytes, which URLs do not have unescaped.
            None => break,
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_apart_and_shows_no_secret() {
        let location = Location::parse("grpc://me:s%40cret@host:4711/sales?timeout=30s&connect_timeout=500ms");
        let location = location.expect("an address");
        assert_eq!(location.url(), "grpc://host:4711");
        assert_eq!(location.credentials(), (Some("me"), Some("s@cret")));
        assert_eq!(location.path(), Some("sales"));
        assert_eq!(location.timeout(), Some(Duration::from_secs(30)));
        assert_eq!(location.connect_timeout(), Duration::from_millis(500));
        assert!(!format!("{location} {location:?}").contains("cret"));
        assert_eq!(Location::parse("grpc://127.0.0.1:1").expect("an address").url(), "grpc://127.0.0.1:1");
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for wrong in ["nothing", "grpc://h:1?timeout=soon", "grpc://h:1?timeout=0", "grpc://h:1?colour=red"] {
            assert!(Location::parse(wrong).is_err(), "{wrong}");
        }
        let mut location = Location::parse("grpc://h:1").expect("an address");
        let options = |key: &str| HashMap::from([(key.to_owned(), "1".to_owned())]);
        assert_eq!(location.apply("flightsql", &options("flightsql.table")).expect("known").as_deref(), Some("1"));
        assert!(location.apply("flightsql", &options("flightsql.tabel")).is_err());
        assert!(location.apply("flightsql", &options("format.table")).is_err());
    }
}
