//! Digests: the bytes of a stream become one, and one becomes a name in the store. Nothing else makes a path of what an
//! image says, and only for the algorithms listed here.

use oci_spec::image::{Digest, DigestAlgorithm};
use sha2::{Digest as _, Sha256, Sha512};

use crate::error::{Error, Result};

/// Hashes a stream with the algorithm of the digest that is expected.
#[derive(Clone)]
pub enum Hasher {
    Sha256(Sha256),
    Sha512(Box<Sha512>),
}

impl Hasher {
    /// sha256, which is what everything is that jug names itself.
    pub fn sha256() -> Self {
        Self::Sha256(Sha256::new())
    }

    pub fn like(digest: &Digest) -> Result<Self> {
        match digest.algorithm() {
            DigestAlgorithm::Sha256 => Ok(Self::sha256()),
            DigestAlgorithm::Sha512 => Ok(Self::Sha512(Box::new(Sha512::new()))),
            other => Err(unknown(other)),
        }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Sha512(hash) => hash.update(bytes),
        }
    }

    pub fn finish(self) -> Digest {
        let text = match self {
            Self::Sha256(hash) => format!("sha256:{}", hex(&hash.finalize())),
            Self::Sha512(hash) => format!("sha512:{}", hex(&hash.finalize())),
        };
        text.parse().expect("a digest of ours has the form of one")
    }
}

/// The sha256 of some bytes.
pub fn of(bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::sha256();
    hasher.update(bytes);
    hasher.finish()
}

/// Where a digest stands below a directory of digests: `sha256/HEX`. Its parts are lower-case hexadecimal of the one
/// length that the algorithm has, as `Digest` has made sure.
pub fn path(digest: &Digest) -> Result<String> {
    match digest.algorithm() {
        DigestAlgorithm::Sha256 | DigestAlgorithm::Sha512 => {
            Ok(format!("{}/{}", digest.algorithm(), digest.digest()))
        }
        other => Err(unknown(other)),
    }
}

fn unknown(algorithm: &DigestAlgorithm) -> Error {
    Error::new(format!("digest algorithm {algorithm} is neither sha256 nor sha512"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_nothing() {
        let nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(of(b"").digest(), nothing);
        assert_eq!(path(&of(b"")).unwrap(), format!("sha256/{nothing}"));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in
            ["sha256:../../x", "sha256:ABC", "sha256:00", "md5:d41d8cd98f00b204e9800998ecf8427e", "sha256"]
        {
            let digest = text.parse::<Digest>();
            assert!(digest.is_err() || path(&digest.unwrap()).is_err(), "{text}");
        }
    }
}
