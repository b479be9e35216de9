//! TLS to a backend: what is verified, what the client proves itself with, and files that change.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use anyhow::{Context as _, Result, ensure};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
};
use tokio::{net::TcpStream, time::Instant as Deadline};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tracing::warn;

use super::{Code, Failure, Finding};
use crate::config::{CheckConfig, ClientCertificate};

/// An encrypted connection.
pub(super) type Stream = TlsStream<TcpStream>;

/// A client of one backend.
pub(super) struct Client {
    name: ServerName<'static>,
    files: Files,
    /// As of when the files were read.
    read: Vec<Option<SystemTime>>,
    config: Arc<ClientConfig>,
}

/// What a handshake needs.
pub(super) struct Connector {
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
}

/// The files that a client is made of.
struct Files {
    authorities: Option<PathBuf>,
    client: Option<ClientCertificate>,
    speaks_http: bool,
}

impl Client {
    pub(super) fn new(address: IpAddr, check: &CheckConfig) -> Result<Self> {
        let name = match &check.server_name {
            Some(name) => ServerName::try_from(name.clone()).context("the name to verify")?,
            None => ServerName::from(address),
        };
        let files = Files {
            authorities: check.ca_file.clone(),
            client: check.client_certificate.clone(),
            speaks_http: check.kind.is_http(),
        };
        let read = files.modified();
        let config = files.read()?.into();
        Ok(Self { name, files, read, config })
    }

    /// What a handshake needs now. Files that have changed are read again.
    pub(super) fn connector(&mut self) -> Connector {
        let modified = self.files.modified();
        if modified != self.read {
            self.read = modified;
            match self.files.read() {
                Ok(config) => self.config = config.into(),
                Err(error) => warn!("health checks of {:?} go on with what they have: {error:#}", self.name),
            }
        }
        Connector { name: self.name.clone(), config: Arc::clone(&self.config) }
    }
}

impl Files {
    fn paths(&self) -> impl Iterator<Item = &Path> {
        let client = self.client.iter().flat_map(|client| [&client.certificate_file, &client.key_file]);
        self.authorities.iter().chain(client).map(PathBuf::as_path)
    }

    fn modified(&self) -> Vec<Option<SystemTime>> {
        self.paths().map(|path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok()).collect()
    }

    fn read(&self) -> Result<ClientConfig> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .context("set up TLS")?;
        let builder = match &self.authorities {
            Some(path) => builder.with_root_certificates(authorities(path)?),
            None => builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider))),
        };
        let mut config = match &self.client {
            Some(ClientCertificate { certificate_file, key_file }) => {
                let key = PrivateKeyDer::from_pem_file(key_file)
                    .with_context(|| format!("read the client's key {}", key_file.display()))?;
                builder
                    .with_client_auth_cert(certificates(certificate_file)?, key)
                    .with_context(|| format!("use the client's certificate {}", certificate_file.display()))?
            }
            None => builder.with_no_client_auth(),
        };
        if self.speaks_http {
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
        }
        Ok(config)
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .with_context(|| format!("read the certificates in {}", path.display()))?;
    ensure!(!certificates.is_empty(), "there is no certificate in {}", path.display());
    Ok(certificates)
}

fn authorities(path: &Path) -> Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store.add(certificate).with_context(|| format!("use the certificates in {}", path.display()))?;
    }
    Ok(store)
}

pub(super) async fn handshake(connector: Connector, stream: TcpStream, deadline: Deadline) -> Result<Stream, Failure> {
    let Connector { name, config } = connector;
    match tokio::time::timeout_at(deadline, TlsConnector::from(config).connect(name, stream)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(Failure::new(Code::L6rsp, Finding::NotReady, super::words(&error))),
        Err(_) => Err(Failure::late(Code::L6tout)),
    }
}

/// Accepts every certificate, as long as the server has its key: a check asks whether a backend answers, not who it is.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
