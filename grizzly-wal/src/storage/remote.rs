//! Clients of object stores, configured by the environment.

use std::sync::Arc;
use std::time::Duration;

use object_store::{BackoffConfig, ObjectStore, ObjectStoreScheme, RetryConfig};
use url::Url;

/// Environment variables that configure object stores: keys, regions, endpoints.
const SETTINGS: [&str; 4] = ["AWS_", "AZURE_", "GOOGLE_", "GCS_"];

/// The store at `$url`, by one of [`object_store`]'s builders, which have no trait in common.
macro_rules! configured {
    ($builder:ty, $url:expr) => {{
        let builder = settings().fold(<$builder>::new().with_url($url.to_string()), |builder, (name, value)| {
            match name.parse() {
                Ok(setting) => builder.with_config(setting, value),
                // One of another program.
                Err(_) => builder,
            }
        });
        builder.with_retry(patience()).build().map(|store| Arc::new(store) as Arc<dyn ObjectStore>)
    }};
}

/// The store at `url`; `None` if this build does not know its kind.
pub(super) fn connect(scheme: &ObjectStoreScheme, url: &Url) -> Option<object_store::Result<Arc<dyn ObjectStore>>> {
    match scheme {
        #[cfg(feature = "aws")]
        ObjectStoreScheme::AmazonS3 => Some(configured!(object_store::aws::AmazonS3Builder, url)),
        #[cfg(feature = "gcp")]
        ObjectStoreScheme::GoogleCloudStorage => Some(configured!(object_store::gcp::GoogleCloudStorageBuilder, url)),
        #[cfg(feature = "azure")]
        ObjectStoreScheme::MicrosoftAzure => Some(configured!(object_store::azure::MicrosoftAzureBuilder, url)),
        _ => None,
    }
}

/// What the environment says about object stores.
fn settings() -> impl Iterator<Item = (String, String)> {
    let all =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let ours = all.filter(|(name, _)| SETTINGS.iter().any(|prefix| name.starts_with(prefix)));
    ours.map(|(name, value)| (name.to_ascii_lowercase(), value))
}

/// Whether the environment says how long a request may take; then nothing here is more impatient.
pub(super) fn is_patient() -> bool {
    settings().any(|(name, _)| name.ends_with("_timeout") && !name.ends_with("connect_timeout"))
}

/// How long a store that cannot be reached is tried again. Whoever waits for a commit waits as long.
fn patience() -> RetryConfig {
    let backoff = BackoffConfig { max_backoff: Duration::from_secs(1), ..Default::default() };
    // The time decides, not the number: pauses are random, and ten of them may be over after two seconds.
    RetryConfig { backoff, max_retries: 1000, retry_timeout: Duration::from_secs(5) }
}
