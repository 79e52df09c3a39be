//! The Python side: the bridge between the I/O threads and the event loop, and the twins that tests reach directly.

pub mod bare;
pub mod bridge;
pub mod events;
pub mod layout;
pub mod metadata;
pub mod pages;
pub mod prefix;
pub mod said;
pub mod saying;
pub mod stream;
pub mod types;
pub mod views;

use pyo3::prelude::*;

/// The fast twins of a few modules of the endpoint picker.
#[pymodule]
pub mod epp_native {
    #[pymodule_export]
    use super::bare::{Machine, Reader, Renamer};
    #[pymodule_export]
    use super::bridge::{Bridge, cipher_suites};
    #[pymodule_export]
    use super::events::EventIndex;
    #[pymodule_export]
    use super::layout::layout;
    #[pymodule_export]
    use super::pages::{PageReader, page_excerpt};
    #[pymodule_export]
    use super::prefix::{LruIndex, chain, content_hashes, outline, packed_keys, prompt_blocks};
    #[pymodule_export]
    use super::stream::Stream;
    #[pymodule_export]
    use super::views::{Body, Headers, Outcome, Request, ResponseHead};
}
