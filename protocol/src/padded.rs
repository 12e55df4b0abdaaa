//! The layout of what is sealed, in frames and in entries alike, so that a ciphertext's length tells
//! little:
//!
//! ```text
//! flags u8 ‖ plain length u32 LE ‖ payload length u32 LE ‖ payload ‖ zeros up to Padmé(all before)
//! ```
//!
//! `flags` is 0 for a payload that is the plaintext itself, 1 for one that is its zstd frame. The
//! padding leaks O(log log length) bits and costs at most 12 % (Padmé: Nikitin et al., *Reducing
//! Metadata Leakage from Encrypted Files and Communication with PURBs*, 2019, §4). Anything but this
//! one layout of a payload is refused.

use std::cell::RefCell;

use zstd::bulk::{Compressor, Decompressor};

/// Bytes before the payload.
pub(crate) const HEADER_LEN: usize = 9;

const RAW: u8 = 0;
const ZSTD: u8 = 1;

/// zstd level: on JSON-like changes 3 gives nearly what 9 does at four times the speed.
const LEVEL: i32 = 3;

/// Shorter plaintexts are not worth a try: a zstd frame alone has some 12 bytes.
const COMPRESS_FROM: usize = 96;

/// The decrypted bytes do not have the layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// What a padded message holds.
#[derive(Debug)]
pub(crate) struct Unpacked<'a> {
    pub header: &'a [u8],
    pub payload: &'a [u8],
    pub plain_len: usize,
    pub compressed: bool,
}

/// The length to which `len` bytes are padded.
pub(crate) const fn padme(len: usize) -> usize {
    if len < 2 {
        return len;
    }
    let exponent = len.ilog2();
    let kept_bits = exponent.ilog2() + 1;
    let mask = (1 << (exponent - kept_bits)) - 1;
    (len + mask) & !mask
}

/// The padded length of a plaintext that is not compressed.
pub(crate) const fn packed_len(plain_len: usize) -> usize {
    padme(HEADER_LEN + plain_len)
}

/// Writes header and payload of `plain`, then the padding, onto the cleared `out`. With `compress`
/// the payload is zstd's if that saves at least a sixteenth. Gives whether it is.
pub(crate) fn pack(plain: &[u8], compress: bool, out: &mut Vec<u8>) -> bool {
    out.clear();
    if compress && plain.len() >= COMPRESS_FROM && pack_compressed(plain, out) {
        return true;
    }
    out.clear();
    // With room for the authentication tag, so that sealing does not move it all once more.
    out.reserve(packed_len(plain.len()) + crate::keys::TAG_LEN);
    out.resize(HEADER_LEN, 0);
    out.extend_from_slice(plain);
    pack_in_place(out);
    false
}

/// Completes `buffer`, which holds [`HEADER_LEN`] bytes of any value and then a plaintext, to an
/// uncompressed padded message.
pub(crate) fn pack_in_place(buffer: &mut Vec<u8>) {
    let plain_len = buffer.len() - HEADER_LEN;
    write_header(buffer, RAW, plain_len, plain_len);
    buffer.resize(packed_len(plain_len), 0);
}

fn pack_compressed(plain: &[u8], out: &mut Vec<u8>) -> bool {
    out.resize(HEADER_LEN + plain.len() - plain.len() / 16, 0);
    // A payload that does not fit into the room is one that does not save enough.
    let written = COMPRESSOR.with_borrow_mut(|zstd| {
        zstd.as_mut()
            .and_then(|zstd| zstd.compress_to_buffer(plain, &mut out[HEADER_LEN..]).ok())
    });
    let Some(payload_len) = written else {
        return false;
    };
    write_header(out, ZSTD, plain.len(), payload_len);
    let packed = padme(HEADER_LEN + payload_len);
    out.truncate(HEADER_LEN + payload_len);
    out.resize(packed, 0);
    true
}

fn write_header(out: &mut [u8], flags: u8, plain_len: usize, payload_len: usize) {
    let length = |len: usize| {
        u32::try_from(len)
            .expect("bounded far below 4 GiB by every caller")
            .to_le_bytes()
    };
    out[0] = flags;
    out[1..5].copy_from_slice(&length(plain_len));
    out[5..HEADER_LEN].copy_from_slice(&length(payload_len));
}

/// Reads a padded message whose plaintext may have at most `max_plain` bytes. An uncompressed
/// payload is then the plaintext; a compressed one goes through [`decompress`].
pub(crate) fn unpack(packed: &[u8], max_plain: usize) -> Result<Unpacked<'_>, Malformed> {
    let (header, rest) = packed.split_at_checked(HEADER_LEN).ok_or(Malformed)?;
    let length = |at: usize| {
        let bytes = [header[at], header[at + 1], header[at + 2], header[at + 3]];
        usize::try_from(u32::from_le_bytes(bytes)).map_err(|_| Malformed)
    };
    let (plain_len, payload_len) = (length(1)?, length(5)?);
    let compressed = match header[0] {
        RAW => false,
        ZSTD => true,
        _ => return Err(Malformed),
    };
    if plain_len > max_plain || payload_len > plain_len || (!compressed && payload_len != plain_len)
    {
        return Err(Malformed);
    }
    let (payload, padding) = rest.split_at_checked(payload_len).ok_or(Malformed)?;
    if packed.len() != padme(HEADER_LEN + payload_len) || padding.iter().any(|byte| *byte != 0) {
        return Err(Malformed);
    }
    Ok(Unpacked {
        header,
        payload,
        plain_len,
        compressed,
    })
}

/// Decompresses a payload to exactly `plain_len` bytes in `out`, which is cleared first.
pub(crate) fn decompress(
    payload: &[u8],
    plain_len: usize,
    out: &mut Vec<u8>,
) -> Result<(), Malformed> {
    out.clear();
    out.resize(plain_len, 0);
    let written = DECOMPRESSOR.with_borrow_mut(|zstd| {
        zstd.as_mut()
            .and_then(|zstd| zstd.decompress_to_buffer(payload, &mut out[..]).ok())
    });
    match written {
        Some(written) if written == plain_len => Ok(()),
        _ => Err(Malformed),
    }
}

// zstd's working memory, kept per thread: making it anew costs more than compressing a small
// message. It carries nothing from one message to the next.
thread_local! {
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> =
        RefCell::new(Compressor::new(LEVEL).ok());
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> =
        RefCell::new(Decompressor::new().ok());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn padme_gives_the_papers_lengths() {
        for (len, padded) in [(0, 0), (1, 1), (9, 10), (1 << 20, 1 << 20)] {
            assert_eq!(padme(len), padded, "{len}");
        }
        // A length of 2^20 and a bit is rounded up to 2^15: the top 5 of its bits stay.
        assert_eq!(padme((1 << 20) + 9), (1 << 20) + (1 << 15));
    }

    #[test]
    fn what_does_not_get_smaller_stays_as_it_is() {
        let noise: Vec<u8> = (0..4096u32)
            .flat_map(|n| blake3::hash(&n.to_le_bytes()).as_bytes()[..4].to_vec())
            .collect();
        let mut packed = Vec::new();
        assert!(!pack(&noise, true, &mut packed));
        assert_eq!(packed.len(), packed_len(noise.len()));
        assert!(pack(&[b'a'; 4096], true, &mut packed));
        assert!(packed.len() < 64);
    }

    #[test]
    fn a_plaintext_longer_than_announced_is_refused() {
        let mut packed = Vec::new();
        pack(&[b'a'; 4096], true, &mut packed);
        let unpacked = unpack(&packed, 4096).unwrap();
        let mut out = Vec::new();
        for wrong in [0, 1, 4095, 4097] {
            assert!(decompress(unpacked.payload, wrong, &mut out).is_err());
        }
        assert!(unpack(&packed, 4095).is_err());
    }

    proptest! {
        #[test]
        fn padding_costs_at_most_an_eighth(len in 0usize..(16 << 20)) {
            let padded = padme(len);
            prop_assert!(padded >= len);
            prop_assert!(padded - len <= len / 8);
            prop_assert_eq!(padme(padded), padded);
        }

        #[test]
        fn a_plaintext_returns(plain in prop::collection::vec(0u8..4, 0..600), compress: bool) {
            let mut packed = Vec::new();
            let compressed = pack(&plain, compress, &mut packed);
            let unpacked = unpack(&packed, plain.len()).unwrap();
            prop_assert_eq!(unpacked.compressed, compressed);
            let mut out = unpacked.payload.to_vec();
            if compressed {
                decompress(unpacked.payload, unpacked.plain_len, &mut out).unwrap();
            }
            prop_assert_eq!(out, plain);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(unpacked) = unpack(&bytes, 1 << 16) {
                let _ = decompress(unpacked.payload, unpacked.plain_len, &mut Vec::new());
            }
        }
    }
}
