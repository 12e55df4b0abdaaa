//! Canonical bytes: how everything here is encoded, and what a decoder refuses.
//!
//! The encoding is `postcard` (varints, no field names, no padding). A decoder takes a byte limit,
//! refuses what is left over, and encodes again what it has read: bytes that are not exactly the
//! encoding of their own value are refused, so that one value has one encoding and one hash.
//! Collections are bounded while they are read, before memory is given to them.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, DeserializeOwned, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Why bytes were not taken for what they should have been.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// More bytes than this format may ever have.
    #[error("{len} bytes where at most {max} are allowed")]
    TooLong {
        /// Bytes that were offered.
        len: usize,
        /// Bytes that the format allows.
        max: usize,
    },
    /// Truncated, trailing or malformed bytes, or a collection over its bound.
    #[error("the bytes do not decode")]
    Malformed,
    /// The bytes decode, but are not the one encoding of their value.
    #[error("the bytes are not the canonical encoding of their value")]
    NotCanonical,
    /// Written by a later version of the program.
    #[error("version {found} is newer than the {supported} that this program reads")]
    Newer {
        /// The version that the bytes carry.
        found: u16,
        /// The newest version that this program reads.
        supported: u16,
    },
}

/// The canonical encoding of `value`.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    encode_onto(value, Vec::new())
}

/// Appends the canonical encoding of `value` to `out` and gives it back.
pub fn encode_onto<T: Serialize + ?Sized>(value: &T, out: Vec<u8>) -> Vec<u8> {
    // Only a failing writer or a value without a known length can fail; Vec and our types are neither.
    postcard::to_extend(value, out).expect("our own types encode into memory")
}

/// Decodes exactly `bytes`, of which there may be at most `max`.
pub fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8], max: usize) -> Result<T, CodecError> {
    if bytes.len() > max {
        return Err(CodecError::TooLong {
            len: bytes.len(),
            max,
        });
    }
    let value: T = postcard::from_bytes(bytes).map_err(|_| CodecError::Malformed)?;
    // `from_bytes` ignores what is left over; comparing the whole encoding does not.
    if encode(&value) != bytes {
        return Err(CodecError::NotCanonical);
    }
    Ok(value)
}

/// Like [`decode`], for a format whose first field is its `u16` version: a version above
/// `supported` is refused as newer before the rest is looked at, and 0 never existed.
pub fn decode_versioned<T: Serialize + DeserializeOwned>(
    bytes: &[u8],
    max: usize,
    supported: u16,
) -> Result<T, CodecError> {
    check_version(bytes, supported)?;
    decode(bytes, max)
}

/// Like [`decode_versioned`], for a value that is secret: what it is encoded into again is wiped.
pub(crate) fn decode_secret<T: Serialize + DeserializeOwned>(
    bytes: &[u8],
    max: usize,
    supported: u16,
) -> Result<T, CodecError> {
    check_version(bytes, supported)?;
    if bytes.len() > max {
        return Err(CodecError::TooLong {
            len: bytes.len(),
            max,
        });
    }
    let value: T = postcard::from_bytes(bytes).map_err(|_| CodecError::Malformed)?;
    // It does not grow where it is as long as it must be.
    let again = Zeroizing::new(encode_onto(&value, Vec::with_capacity(bytes.len())));
    if again[..] != *bytes {
        return Err(CodecError::NotCanonical);
    }
    Ok(value)
}

/// Reads a value at the front of `bytes`, which this program encoded itself and has kept since; gives
/// what follows it too. For what comes from elsewhere there is [`decode`].
pub(crate) fn decode_prefix<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, &[u8]), CodecError> {
    postcard::take_from_bytes(bytes).map_err(|_| CodecError::Malformed)
}

/// Reads the leading version of a versioned format and refuses what this program cannot read.
pub fn check_version(bytes: &[u8], supported: u16) -> Result<u16, CodecError> {
    let (found, _rest): (u16, _) =
        postcard::take_from_bytes(bytes).map_err(|_| CodecError::Malformed)?;
    match found {
        0 => Err(CodecError::Malformed),
        found if found > supported => Err(CodecError::Newer { found, supported }),
        found => Ok(found),
    }
}

/// Serde for `Vec<u8>` as one run of bytes (the same wire form, without a call for each byte), of at
/// most `MAX` bytes: `#[serde(with = "codec::Bytes::<MAX>")]`.
pub struct Bytes<const MAX: usize>;

impl<const MAX: usize> Bytes<MAX> {
    /// For serde's `with`.
    pub fn serialize<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    /// For serde's `with`.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        struct BytesVisitor<const MAX: usize>;
        impl<'de, const MAX: usize> Visitor<'de> for BytesVisitor<MAX> {
            type Value = Vec<u8>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MAX} bytes")
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                if bytes.len() > MAX {
                    return Err(E::invalid_length(bytes.len(), &self));
                }
                Ok(bytes.to_vec())
            }
        }
        deserializer.deserialize_bytes(BytesVisitor::<MAX>)
    }
}

/// Serde for a `Vec<T>` of at most `MAX` items: `#[serde(with = "codec::List::<MAX>")]`.
pub struct List<const MAX: usize>;

impl<const MAX: usize> List<MAX> {
    /// For serde's `with`.
    pub fn serialize<T: Serialize, S: serde::Serializer>(
        items: &[T],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        items.serialize(serializer)
    }

    /// For serde's `with`.
    pub fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<T>, D::Error> {
        struct ListVisitor<T, const MAX: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for ListVisitor<T, MAX> {
            type Value = Vec<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MAX} items")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
                let announced = seq.size_hint().unwrap_or(0);
                if announced > MAX {
                    return Err(de::Error::invalid_length(announced, &self));
                }
                // Grows as items come, so that an announced length alone takes no memory.
                let mut items = Vec::with_capacity(announced.min(64));
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(items)
            }
        }
        deserializer.deserialize_seq(ListVisitor::<T, MAX>(PhantomData))
    }
}

/// Serde for a `String` of at most `MAX` bytes of UTF-8: `#[serde(with = "codec::Text::<MAX>")]`.
pub struct Text<const MAX: usize>;

impl<const MAX: usize> Text<MAX> {
    /// For serde's `with`.
    pub fn serialize<S: serde::Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(text)
    }

    /// For serde's `with`.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
        struct TextVisitor<const MAX: usize>;
        impl<const MAX: usize> Visitor<'_> for TextVisitor<MAX> {
            type Value = String;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MAX} bytes of text")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
                if text.len() > MAX {
                    return Err(E::invalid_length(text.len(), &self));
                }
                Ok(text.to_owned())
            }
        }
        deserializer.deserialize_str(TextVisitor::<MAX>)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Sample {
        version: u16,
        #[serde(with = "Bytes::<8>")]
        bytes: Vec<u8>,
        #[serde(with = "List::<3>")]
        list: Vec<u32>,
        #[serde(with = "Text::<4>")]
        text: String,
    }

    fn sample(bytes: usize, list: usize, text: usize) -> Vec<u8> {
        encode(&Sample {
            version: 1,
            bytes: vec![7; bytes],
            list: vec![9; list],
            text: "x".repeat(text),
        })
    }

    #[test]
    fn a_value_returns_from_its_bytes() {
        let bytes = sample(8, 3, 4);
        assert_eq!(encode(&decode::<Sample>(&bytes, 64).unwrap()), bytes);
    }

    #[test]
    fn each_bound_is_kept_while_reading() {
        for over in [sample(9, 0, 0), sample(0, 4, 0), sample(0, 0, 5)] {
            assert_eq!(decode::<Sample>(&over, 64), Err(CodecError::Malformed));
        }
        assert_eq!(
            decode::<Sample>(&sample(8, 3, 4), 10),
            Err(CodecError::TooLong { len: 19, max: 10 })
        );
    }

    #[test]
    fn trailing_and_overlong_bytes_are_not_canonical() {
        let mut trailing = sample(1, 0, 0);
        trailing.push(0);
        assert_eq!(
            decode::<Sample>(&trailing, 64),
            Err(CodecError::NotCanonical)
        );
        // The version 1 as a varint of two bytes.
        let overlong = [&[0x81, 0x00], &sample(1, 0, 0)[1..]].concat();
        assert_eq!(
            decode::<Sample>(&overlong, 64),
            Err(CodecError::NotCanonical)
        );
    }

    #[test]
    fn a_newer_version_is_refused_as_newer() {
        let newer = encode(&(7u16, [1u8; 32]));
        assert_eq!(
            decode_versioned::<Sample>(&newer, 64, 1),
            Err(CodecError::Newer {
                found: 7,
                supported: 1
            })
        );
        assert_eq!(
            decode_versioned::<Sample>(&[0], 64, 1),
            Err(CodecError::Malformed)
        );
        assert_eq!(
            decode_versioned::<Sample>(&[], 64, 1),
            Err(CodecError::Malformed)
        );
    }

    proptest! {
        #[test]
        fn whatever_decodes_is_canonical(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(value) = decode_versioned::<Sample>(&bytes, 64, 1) {
                prop_assert_eq!(encode(&value), bytes);
            }
        }
    }
}
