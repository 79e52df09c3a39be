//! TLS as operators ask for it. The key pair is taken at each handshake, so a change is for new connections.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, ServerConfig, SupportedProtocolVersion};

/// OpenSSL's names of the TLS 1.2 suites that are offered.
const SUITES: [(&str, CipherSuite); 6] = [
    ("ECDHE-ECDSA-AES128-GCM-SHA256", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-ECDSA-AES256-GCM-SHA384", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-ECDSA-CHACHA20-POLY1305", CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ("ECDHE-RSA-AES128-GCM-SHA256", CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-RSA-AES256-GCM-SHA384", CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-RSA-CHACHA20-POLY1305", CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
];

/// The names of all suites that can be chosen.
pub fn suite_names() -> Vec<&'static str> {
    SUITES.iter().map(|(name, _)| *name).collect()
}

/// The configuration for new handshakes.
///
/// `min_version` is one of Go's names or None; `suites` are OpenSSL names for TLS 1.2, empty for all.
pub fn server_config(
    certificate: &[u8],
    key: &[u8],
    min_version: Option<&str>,
    suites: &[String],
) -> Result<Arc<ServerConfig>, String> {
    let chain = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("the certificate is not PEM: {error}"))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("the private key is not PEM: {error}"))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider(suites)?))
        .with_protocol_versions(versions(min_version))
        .map_err(|error| format!("TLS cannot be configured: {error}"))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| format!("the key pair cannot be used: {error}"))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// Versions below 1.2 are never offered: a lower minimum is met by 1.2.
fn versions(min_version: Option<&str>) -> &'static [&'static SupportedProtocolVersion] {
    static MODERN: [&SupportedProtocolVersion; 1] = [&TLS13];
    static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    if min_version == Some("VersionTLS13") { &MODERN } else { &BOTH }
}

fn provider(suites: &[String]) -> Result<CryptoProvider, String> {
    let mut provider = ring::default_provider();
    if suites.is_empty() {
        return Ok(provider);
    }
    let mut wanted = Vec::with_capacity(suites.len());
    for name in suites {
        let known = SUITES.iter().find(|(known, _)| known == name);
        let (_, suite) = known.ok_or_else(|| format!("the native transport does not offer the cipher suite {name}"))?;
        wanted.push(*suite);
    }
    provider.cipher_suites.retain(|suite| suite.tls13().is_some() || wanted.contains(&suite.suite()));
    Ok(provider)
}
