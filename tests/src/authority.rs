//! A certificate authority made on the spot, for tests in which somebody has to prove who he is.

use std::{fs, path::Path, sync::Arc};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls::{
    RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
    version::{TLS12, TLS13},
};

/// Who issues certificates.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key.
pub struct Identity {
    certificate: Certificate,
    key: KeyPair,
}

/// Which versions of TLS a server speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Versions {
    /// Whichever the client likes best.
    All,
    /// TLS 1.2 alone.
    Tls12,
}

impl Authority {
    /// An authority of this name, with a key of its own.
    pub fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?).context("make an authority")?;
        Ok(Self { issuer })
    }

    /// A certificate for these names and addresses.
    pub fn issue(&self, names: &[&str]) -> Result<Identity> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(names)?.signed_by(&key, &self.issuer).context("sign a certificate")?;
        Ok(Identity { certificate, key })
    }

    /// Writes the authority's certificate, so that somebody may believe in it.
    pub fn write(&self, file: &Path) -> Result<()> {
        fs::write(file, self.issuer.pem()).with_context(|| format!("write {}", file.display()))
    }
}

impl Identity {
    /// Writes the certificate.
    pub fn write_certificate(&self, file: &Path) -> Result<()> {
        fs::write(file, self.certificate.pem()).with_context(|| format!("write {}", file.display()))
    }

    /// Writes the key.
    pub fn write_key(&self, file: &Path) -> Result<()> {
        fs::write(file, self.key.serialize_pem()).with_context(|| format!("write {}", file.display()))
    }

    /// A server with this identity, which asks its clients for theirs if there is an authority to have issued it. As a
    /// server of today it would speak HTTP/2 as well.
    pub fn server(&self, versions: Versions, clients: Option<&Authority>) -> Result<Arc<ServerConfig>> {
        let versions: &[&SupportedProtocolVersion] = match versions {
            Versions::All => &[&TLS13, &TLS12],
            Versions::Tls12 => &[&TLS12],
        };
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions)?;
        let builder = match clients {
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.issuer.der().clone())?;
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build()?;
                builder.with_client_cert_verifier(verifier)
            }
            None => builder.with_no_client_auth(),
        };
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let mut config = builder.with_single_cert(vec![self.certificate.der().clone()], key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}
