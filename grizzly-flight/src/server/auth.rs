//! Who may call: without a token everybody (which is why such a server listens on loopback only), with one those
//! who show it.

use std::sync::Arc;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use grizzly_provider::{Error, ErrorKind};
use tonic::{Request, Status, metadata::MetadataMap};

use crate::error::status;

/// The token every call must carry, if any.
#[derive(Clone, Default)]
pub(crate) struct Auth(Option<Arc<str>>);

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Auth(token)" } else { "Auth(none)" })
    }
}

impl Auth {
    pub(crate) fn new(token: Option<String>) -> Self {
        Self(token.map(Arc::from))
    }

    /// What the other servers of a cluster want to see too.
    pub(crate) fn token(&self) -> Option<String> {
        self.0.as_ref().map(|token| token.to_string())
    }

    /// Whether calls are checked.
    pub(crate) fn is_required(&self) -> bool {
        self.0.is_some()
    }

    /// Lets a request pass that carries the token.
    pub(crate) fn check<T>(&self, request: Request<T>) -> Result<Request<T>, Status> {
        let Some(token) = &self.0 else { return Ok(request) };
        match given(request.metadata()) {
            Some(given) if same(given.as_bytes(), token.as_bytes()) => Ok(request),
            Some(_) => Err(refused("the token is wrong")),
            None => Err(refused("this server wants a token: `authorization: Bearer …`, or as the password")),
        }
    }

    /// The header that a successful handshake answers with.
    pub(crate) fn header(&self) -> Option<String> {
        self.0.as_ref().map(|token| format!("Bearer {token}"))
    }
}

fn refused(message: &str) -> Status {
    let mut refused = status(&Error::new(ErrorKind::Permission, message));
    let metadata = std::mem::take(refused.metadata_mut());
    // Drivers ask for other credentials on this code, and give up on PERMISSION_DENIED.
    Status::with_metadata(tonic::Code::Unauthenticated, message, metadata)
}

/// The token in an `authorization` header: a bearer token, or the password of a user of any name.
fn given(metadata: &MetadataMap) -> Option<String> {
    let header = metadata.get("authorization")?.to_str().ok()?;
    let (scheme, value) = header.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(value.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(BASE64_STANDARD.decode(value.trim()).ok()?).ok()?;
    decoded.split_once(':').map(|(_, password)| password.to_owned())
}

/// Equality in a time that depends on the lengths alone.
fn same(given: &[u8], token: &[u8]) -> bool {
    given.len() == token.len() && given.iter().zip(token).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(header: Option<&str>) -> Request<()> {
        let mut request = Request::new(());
        if let Some(header) = header {
            request.metadata_mut().insert("authorization", header.parse().expect("ASCII"));
        }
        request
    }

    #[test]
    fn the_token_is_asked_for_in_both_schemes() {
        let auth = Auth::new(Some("secret".to_owned()));
        let basic = format!("Basic {}", BASE64_STANDARD.encode("anybody:secret"));
        let wrong = format!("Basic {}", BASE64_STANDARD.encode("anybody:secre"));
        for good in ["Bearer secret", "bearer secret", &basic] {
            assert!(auth.check(request(Some(good))).is_ok(), "{good}");
        }
        for bad in [None, Some("Bearer secre"), Some("Bearer secrets"), Some("secret"), Some(wrong.as_str())] {
            let refused = auth.check(request(bad)).expect_err("refused");
            assert_eq!(refused.code(), tonic::Code::Unauthenticated);
        }
        assert!(Auth::default().check(request(None)).is_ok());
    }
}
