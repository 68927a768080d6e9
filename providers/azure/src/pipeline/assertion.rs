//! Who has the key of a certificate says so by a signed assertion (RFC 7523), in the form that Entra ID takes.

use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair;
use aws_lc_rs::signature::RSA_PKCS1_SHA256;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};

/// How long an assertion is good: it is used at once, and clocks differ.
const LASTS: Duration = Duration::from_mins(10);
/// How far the clock of who reads it may be behind.
const SKEW: Duration = Duration::from_mins(1);
/// What makes each one new.
const NONCE: usize = 16;

/// Why there is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssertionError {
    /// No certificate.
    #[error(
        "there is no certificate in it; write certificate and key as PEM (openssl pkcs12 -in FILE -nodes -out FILE.pem)"
    )]
    NoCertificate,
    /// No key that can be read.
    #[error(
        "there is no private key in it that is not locked; write certificate and key as PEM without a password (openssl pkcs12 -in FILE \
         -nodes -out FILE.pem)"
    )]
    NoKey,
    /// A key of another kind.
    #[error("its private key is no RSA key of 2048 bits or more, which Entra ID needs; make one")]
    Key,
    /// The machine's fault.
    #[error("it cannot be signed on this machine: {0}")]
    Machine(&'static str),
}

/// What signs: the key of a certificate.
pub(super) struct Signer {
    key: KeyPair,
    /// By which Entra ID finds the certificate.
    thumbprint: String,
}

impl Signer {
    /// Reads certificate and key.
    pub(super) fn of(pem: &[u8]) -> Result<Self, AssertionError> {
        let certificate = CertificateDer::from_pem_slice(pem).map_err(|_| AssertionError::NoCertificate)?;
        let key = match PrivateKeyDer::from_pem_slice(pem).map_err(|_| AssertionError::NoKey)? {
            PrivateKeyDer::Pkcs8(key) => KeyPair::from_pkcs8(key.secret_pkcs8_der()),
            PrivateKeyDer::Pkcs1(key) => KeyPair::from_der(key.secret_pkcs1_der()),
            _ => return Err(AssertionError::Key),
        };
        let thumbprint = digest(&SHA1_FOR_LEGACY_USE_ONLY, &certificate);
        Ok(Self { key: key.map_err(|_| AssertionError::Key)?, thumbprint: text(thumbprint.as_ref()) })
    }

    /// That `client` is who asks `audience`, and has the key.
    pub(super) fn sign(&self, client: &str, audience: &str, now: SystemTime) -> Result<String, AssertionError> {
        let mut nonce = [0; NONCE];
        aws_lc_rs::rand::fill(&mut nonce).map_err(|_| AssertionError::Machine("no random numbers"))?;
        let at = |time: SystemTime| {
            let since = time.duration_since(SystemTime::UNIX_EPOCH);
            since.map(|since| since.as_secs()).map_err(|_| AssertionError::Machine("its clock is before 1970"))
        };
        let header = json!({"alg": "RS256", "typ": "JWT", "x5t": self.thumbprint});
        let claims = json!({
            "aud": audience, "iss": client, "sub": client, "jti": text(&nonce),
            "nbf": at(now - SKEW)?, "exp": at(now + LASTS)?,
        });
        let part = |value: &Value| text(value.to_string().as_bytes());
        let said = format!("{}.{}", part(&header), part(&claims));
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), said.as_bytes(), &mut signature)
            .map_err(|_| AssertionError::Machine("no signature"))?;
        Ok(format!("{said}.{}", text(&signature)))
    }
}

fn text(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::KeyPair as _;
    use rcgen::{CertificateParams, KeyPair as Made, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};

    use super::*;

    #[test]
    fn what_is_no_certificate_with_its_key_is_told_with_what_to_do() {
        let certificate = |key: &Made| CertificateParams::new([]).unwrap().self_signed(key).unwrap().pem();
        let (rsa, elliptic) =
            (Made::generate_for(&PKCS_RSA_SHA256).unwrap(), Made::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap());
        let locked = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        for (pem, expected) in [
            (certificate(&rsa) + &rsa.serialize_pem(), None),
            (rsa.serialize_pem() + &certificate(&rsa), None),
            (rsa.serialize_pem(), Some(AssertionError::NoCertificate)),
            (certificate(&rsa), Some(AssertionError::NoKey)),
            (certificate(&rsa) + locked, Some(AssertionError::NoKey)),
            (certificate(&elliptic) + &elliptic.serialize_pem(), Some(AssertionError::Key)),
            ("\u{1}binary".to_owned(), Some(AssertionError::NoCertificate)),
        ] {
            assert_eq!(Signer::of(pem.as_bytes()).err(), expected, "{pem}");
        }
    }

    #[test]
    fn older_files_have_the_key_in_a_form_of_its_own() {
        let key = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let pkcs8 = AsDer::<Pkcs8V1Der<'_>>::as_der(&key).unwrap();
        // The key itself is the last field of the newer form, behind 26 bytes for this size.
        let pkcs1 = &pkcs8.as_ref()[26..];
        let made = Made::generate_for(&PKCS_RSA_SHA256).unwrap();
        let certificate = CertificateParams::new([]).unwrap().self_signed(&made).unwrap().pem();
        let encoded = base64::engine::general_purpose::STANDARD.encode(pkcs1);
        let pem = format!("{certificate}-----BEGIN RSA PRIVATE KEY-----\n{encoded}\n-----END RSA PRIVATE KEY-----\n");
        let signer = Signer::of(pem.as_bytes()).unwrap();
        assert_eq!(signer.key.public_key().as_ref(), key.public_key().as_ref());
    }
}
