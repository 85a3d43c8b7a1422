//! Certificates for redis-servers of the contract suite, signed by an authority of a test's own.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use super::test_server::Server;

/// What makes a server in a directory with certificates speak TLS to clients.
pub(in crate::broker) const ARGS: [&str; 6] =
    ["--tls-cert-file", "cert.pem", "--tls-key-file", "key.pem", "--tls-ca-cert-file", "ca.pem"];

pub(in crate::broker) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(in crate::broker) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self { issuer: CertifiedIssuer::self_signed(params, key).expect("an authority") }
    }

    pub(in crate::broker) fn write(&self, dir: &TempDir, name: &str) -> PathBuf {
        let path = dir.path().join(name);
        std::fs::write(&path, self.issuer.pem()).expect("written");
        path
    }

    /// A server with a certificate for `host`.
    pub(in crate::broker) fn server(&self, host: &str) -> Server {
        let dir = tempfile::tempdir().expect("a temporary directory");
        self.equip(&dir, host);
        Server::start_in(dir, &ARGS)
    }

    /// Puts what [`ARGS`] names into a server's directory.
    pub(in crate::broker) fn equip(&self, dir: &TempDir, host: &str) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![host.to_owned()]).expect("parameters");
        // Under the authority's own name OpenSSL, and so a replica, would take it for one that signed itself.
        params.distinguished_name.push(DnType::CommonName, host);
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        std::fs::write(dir.path().join("cert.pem"), certificate.pem()).expect("written");
        std::fs::write(dir.path().join("key.pem"), key.serialize_pem()).expect("written");
        self.write(dir, "ca.pem");
    }
}
