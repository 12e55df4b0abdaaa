//! Links that people copy, mail, and hold before a camera: `<prefix><version>/<base 32>`.
//!
//! What is in the base 32 is the canonical bytes of an invitation, then four bytes of checksum, so
//! that a link which lost a letter in the mail is called damaged and not wrong. Reading ignores case
//! and spaces; all letters of a link in capitals are in the alphanumeric mode of QR codes.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::base32;
use crate::codec;
use crate::identity::Hash;

const CHECKSUM_LEN: usize = 4;

/// Most bytes of one address in an invitation; a relayed one has some 150.
pub(crate) const ADDRESS_MAX_LEN: usize = 256;

/// One kind of link.
pub(crate) struct LinkKind {
    /// What it begins with, up to the version.
    pub(crate) prefix: &'static str,
    /// The version that this program writes, and the only one that it reads.
    pub(crate) version: u16,
    /// The context of its checksum, which guards against damage and not against malice.
    pub(crate) checksum: &'static str,
    /// Most bytes of its content.
    pub(crate) max_len: usize,
}

/// Why a text is no link of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadLink {
    /// It is something else altogether.
    Foreign,
    /// It began like one, but letters are missing or wrong.
    Damaged,
    /// A later program made it.
    Newer,
}

impl LinkKind {
    /// The link with this content.
    pub(crate) fn write(&self, content: &[u8]) -> String {
        let mut bytes = Zeroizing::new(content.to_vec());
        bytes.extend_from_slice(&self.checksum(content));
        let payload = Zeroizing::new(base32::encode(&bytes));
        format!("{}{}/{}", self.prefix, self.version, *payload)
    }

    /// The content of a link, or of the text of a QR code. It is a secret.
    pub(crate) fn read(&self, text: &str) -> Result<Zeroizing<Vec<u8>>, BadLink> {
        // Base 32 takes 1.6 letters a byte; the rest is for spaces.
        if text.len() > 2 * (self.max_len + CHECKSUM_LEN) {
            return Err(BadLink::Foreign);
        }
        // Mail programs wrap long lines.
        let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let rest = match text.get(..self.prefix.len()) {
            Some(prefix) if prefix.eq_ignore_ascii_case(self.prefix) => &text[self.prefix.len()..],
            _ => return Err(BadLink::Foreign),
        };
        let (number, payload) = rest.split_once('/').ok_or(BadLink::Damaged)?;
        match number.parse::<u16>() {
            Ok(number) if number == self.version => {}
            Ok(number) if number > self.version => return Err(BadLink::Newer),
            _ => return Err(BadLink::Damaged),
        }
        let mut bytes = Zeroizing::new(base32::decode(payload).ok_or(BadLink::Damaged)?);
        let len = bytes.len().saturating_sub(CHECKSUM_LEN);
        let (content, sum) = bytes.split_at(len);
        if sum != self.checksum(content) {
            return Err(BadLink::Damaged);
        }
        bytes.truncate(len);
        Ok(bytes)
    }

    pub(crate) fn checksum(&self, content: &[u8]) -> [u8; CHECKSUM_LEN] {
        let hash = Hash::of(self.checksum, &[content]).0;
        [hash[0], hash[1], hash[2], hash[3]]
    }
}

/// At most `MAX` addresses as multiaddr text; the reader checks that each is one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Addresses<const MAX: usize>(#[serde(with = "codec::List::<MAX>")] Vec<Address>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Address(#[serde(with = "codec::Text::<ADDRESS_MAX_LEN>")] String);

impl<const MAX: usize> Addresses<MAX> {
    /// The first addresses that fit; what is too long or not plain text is left out.
    pub(crate) fn new(addresses: &[String]) -> Self {
        Self(
            addresses
                .iter()
                .filter(|address| is_plain(address))
                .take(MAX)
                .cloned()
                .map(Address)
                .collect(),
        )
    }

    /// The addresses; `None` if one of them is not plain text.
    pub(crate) fn into_plain(self) -> Option<Vec<String>> {
        let addresses: Vec<String> = self.0.into_iter().map(|Address(text)| text).collect();
        addresses
            .iter()
            .all(|address| is_plain(address))
            .then_some(addresses)
    }
}

/// Addresses reach terminals and logs: nothing but visible ASCII.
fn is_plain(address: &str) -> bool {
    !address.is_empty()
        && address.len() <= ADDRESS_MAX_LEN
        && address.bytes().all(|byte| byte.is_ascii_graphic())
}

/// `text` without control and direction characters and outer spaces, cut to `max` bytes.
pub(crate) fn clean(text: &str, max: usize) -> String {
    let mut clean = String::new();
    for character in text.trim().chars().filter(|c| is_visible(*c)) {
        if clean.len() + character.len_utf8() > max {
            break;
        }
        clean.push(character);
    }
    clean.trim().to_owned()
}

/// Not a control character, nor one that reorders or hides text around it (a name is shown in a
/// question that a person answers).
fn is_visible(character: char) -> bool {
    !character.is_control()
        && !matches!(character,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}
