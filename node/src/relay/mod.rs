//! The host: an always-on process that keeps what devices send it, passes it on, and can read none of it.
//!
//! ```text
//! store/   what it keeps, behind one trait with an embedded and a provider's implementation
//! ```

pub mod store;
