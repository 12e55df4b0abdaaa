//! Lists of byte strings on the wire: encoded grants in a welcome, encoded entries in a message.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::codec;

/// Serde for a `Vec<Vec<u8>>` of at most `ITEMS` strings of at most `LEN` bytes, each read as one run:
/// `#[serde(with = "ByteStrings::<ITEMS, LEN>")]`. What bounds them together is the limit on the
/// message that they are in.
pub(crate) struct ByteStrings<const ITEMS: usize, const LEN: usize>;

#[derive(Deserialize)]
struct Owned<const LEN: usize>(#[serde(with = "codec::Bytes::<LEN>")] Vec<u8>);

struct Borrowed<'a>(&'a [u8]);

impl Serialize for Borrowed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<const ITEMS: usize, const LEN: usize> ByteStrings<ITEMS, LEN> {
    pub(crate) fn serialize<S: Serializer>(
        strings: &[Vec<u8>],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(strings.iter().map(|bytes| Borrowed(bytes)))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Vec<u8>>, D::Error> {
        let owned: Vec<Owned<LEN>> = codec::List::<ITEMS>::deserialize(deserializer)?;
        Ok(owned.into_iter().map(|Owned(bytes)| bytes).collect())
    }
}
