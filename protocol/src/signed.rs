//! Signed values: a [`Verified`] exists only after its signature was checked or made here.
//!
//! On the wire a signed value is its canonical encoding, then the signature over those very bytes.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError};
use crate::identity::{BadSignature, DeviceId, DeviceKey, Signature};

/// Bytes that a signature takes on the wire: its length and 64 bytes.
pub const SIGNATURE_LEN: usize = 65;

/// A kind of value that is signed. Its first field is its `u16` version.
pub trait Signable: Serialize + DeserializeOwned {
    /// The context of [`domain`](crate::domain) under which it is signed.
    const CONTEXT: &'static str;
    /// The newest version that this program reads.
    const VERSION: u16;
    /// Bytes of the longest encoding, signature included.
    const MAX_LEN: usize;

    /// Whose signature it carries.
    fn signer(&self) -> DeviceId;
}

/// Why bytes were not taken for a signed value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignedError {
    /// They do not decode.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The signature is not the signer's over these bytes.
    #[error(transparent)]
    Signature(#[from] BadSignature),
    /// The signing key is not the one that the value names.
    #[error("the key is not the one of the signer that the value names")]
    NotTheSigner,
}

#[derive(Serialize, Deserialize)]
struct Signed<T> {
    value: T,
    signature: Signature,
}

/// A value whose signer did sign it.
#[derive(Clone, PartialEq, Eq)]
pub struct Verified<T> {
    value: T,
    bytes: Vec<u8>,
}

impl<T: Signable> Verified<T> {
    /// Signs `value` with the key of its signer.
    pub fn sign(value: T, key: &DeviceKey) -> Result<Self, SignedError> {
        if key.id() != value.signer() {
            return Err(SignedError::NotTheSigner);
        }
        let message = codec::encode(&value);
        let signature = key.sign(T::CONTEXT, &message);
        let bytes = codec::encode_onto(&signature, message);
        if bytes.len() > T::MAX_LEN {
            return Err(SignedError::Codec(CodecError::TooLong {
                len: bytes.len(),
                max: T::MAX_LEN,
            }));
        }
        Ok(Self { value, bytes })
    }

    /// Reads a signed value and checks its form and signature.
    pub fn decode(bytes: &[u8]) -> Result<Self, SignedError> {
        let signed: Signed<T> = codec::decode_versioned(bytes, T::MAX_LEN, T::VERSION)?;
        let message = &bytes[..bytes.len() - SIGNATURE_LEN];
        signed
            .value
            .signer()
            .verify(T::CONTEXT, message, &signed.signature)?;
        Ok(Self {
            value: signed.value,
            bytes: bytes.to_vec(),
        })
    }
}

impl<T> Verified<T> {
    /// The value.
    pub fn value(&self) -> &T {
        &self.value
    }

    /// What is stored and sent: the encoding and the signature.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What the signature is over: the encoding alone.
    pub fn message(&self) -> &[u8] {
        &self.bytes[..self.bytes.len() - SIGNATURE_LEN]
    }
}

impl<T: fmt::Debug> fmt::Debug for Verified<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Verified").field(&self.value).finish()
    }
}
