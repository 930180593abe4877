//! What layers above keep with an open database, for all its users: this one knows only that it is there.

use std::{
    any::{Any, TypeId},
    sync::Arc,
};

use super::core::Grizzly;

impl Grizzly {
    /// Bytes of query results that may be kept: what the settings say.
    pub fn result_cache_bytes(&self) -> usize {
        self.inner.settings.result_cache
    }

    /// The value of type `T` that lives as long as the open database, made when first asked for. It must not hold a
    /// handle of the database, which would never be closed then.
    pub fn extension<T: Any + Send + Sync>(&self, make: impl FnOnce() -> T) -> Arc<T> {
        let mut extensions = self.inner.extensions.lock();
        let known = extensions.get(&TypeId::of::<T>()).and_then(|known| Arc::clone(known).downcast().ok());
        known.unwrap_or_else(|| {
            let made = Arc::new(make());
            extensions.insert(TypeId::of::<T>(), Arc::clone(&made) as _);
            made
        })
    }
}
