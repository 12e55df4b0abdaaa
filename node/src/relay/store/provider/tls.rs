//! Encrypted connections to PostgreSQL, as `sslmode` of the connection string says.
//!
//! Wherever TLS is spoken, the server's certificate must be good for the host's name: by the certificates that the system
//! trusts, or by those of `postgres_ca` alone. `sslmode=disable` is for networks of one's own; over a Unix socket nothing is
//! encrypted, as nobody else is there.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::super::StoreError;
use super::ProviderConfig;

/// What makes connections.
///
/// # Errors
/// The certificates of `postgres_ca` cannot be read, or there are none.
pub fn connector(config: &ProviderConfig, mode: SslMode) -> Result<MakeRustlsConnect, StoreError> {
    let mut roots = RootCertStore::empty();
    match &config.postgres_ca {
        _ if mode == SslMode::Disable => {}
        Some(path) => {
            let wrong = |why: String| StoreError::Failed(format!("postgres_ca {path}: {why}"));
            let found = CertificateDer::pem_file_iter(path);
            for certificate in found.map_err(|error| wrong(error.to_string()))? {
                let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
                let added = roots.add(certificate);
                added.map_err(|error| wrong(error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(wrong("no certificate is in it".to_owned()));
            }
        }
        None => {
            // One that cannot be read is not trusted; that there are none shows when a server needs one.
            let _ = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = ClientConfig::builder_with_provider(crypto)
        .with_safe_default_protocol_versions()
        .map_err(|error| StoreError::Failed(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(client))
}
