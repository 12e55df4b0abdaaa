//! The short code that a person reads on one screen and types on another.
//!
//! `NN-XXXX-XXXX`: a nameplate of two digits, by which the joining device finds the right inviter among several, then
//! seven random symbols (35 bits) and a check symbol. The whole code is the password of SPAKE2, so that a stranger has
//! one guess in 2³⁵; the check symbol catches typing errors before they cost that one guess.
//!
//! The alphabet is Crockford's base 32: no I, L, O, U. Reading is forgiving: case, spaces and dashes do not matter, an
//! O counts as zero, an I or L as one.

use std::fmt;

use rand::CryptoRng;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Symbols of the secret part, check symbol included.
const SYMBOLS: usize = 8;
/// Nameplates run from 0 to 99.
const NAMEPLATES: u8 = 100;
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// How long a typed code stays valid, in milliseconds: time to walk to the other device and type eight symbols.
pub const CODE_LIFETIME_MS: u64 = 120_000;

/// A typed pairing code. `Debug` shows the nameplate only.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct ShortCode {
    nameplate: u8,
    symbols: [u8; SYMBOLS],
}

/// Why a typed text is not a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// It has too few or too many symbols.
    #[error("a pairing code has two digits and eight symbols, like 42-7GKD-M3XP")]
    Length,
    /// It has a character that no code contains.
    #[error("a pairing code does not contain {0:?}")]
    Character(char),
    /// The check symbol does not fit the others.
    #[error("the pairing code was mistyped")]
    Mistyped,
}

impl ShortCode {
    /// A fresh code.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        // From a byte the first 56 would come up more often; from 64 bits the bias is 2⁻⁵⁷.
        let nameplate = (rng.next_u64() % u64::from(NAMEPLATES)) as u8;
        let mut symbols = [0; SYMBOLS];
        rng.fill_bytes(&mut symbols);
        for symbol in &mut symbols {
            *symbol &= 31;
        }
        symbols[SYMBOLS - 1] = check_symbol(nameplate, &symbols);
        Self { nameplate, symbols }
    }

    /// Reads what a person typed.
    pub fn parse(text: &str) -> Result<Self, CodeError> {
        let mut values = Vec::with_capacity(2 + SYMBOLS);
        for character in text.chars() {
            if character.is_whitespace() || matches!(character, '-' | '‐' | '–' | '—' | '_' | '.')
            {
                continue;
            }
            if values.len() == 2 + SYMBOLS {
                return Err(CodeError::Length);
            }
            values.push(value(character).ok_or(CodeError::Character(character))?);
        }
        let [tens, ones, symbols @ ..] = values.as_slice() else {
            return Err(CodeError::Length);
        };
        let symbols: [u8; SYMBOLS] = symbols.try_into().map_err(|_| CodeError::Length)?;
        if *tens > 9 || *ones > 9 {
            return Err(CodeError::Mistyped);
        }
        let nameplate = tens * 10 + ones;
        if symbols[SYMBOLS - 1] != check_symbol(nameplate, &symbols) {
            return Err(CodeError::Mistyped);
        }
        Ok(Self { nameplate, symbols })
    }

    /// The public part: what a joining device asks its surroundings for. 0 to 99.
    pub fn nameplate(&self) -> u8 {
        self.nameplate
    }

    /// The text that a person reads, `NN-XXXX-XXXX`. A secret: it goes to the screen and nowhere else.
    pub fn to_text(&self) -> String {
        let mut text = format!("{:02}", self.nameplate);
        for (position, symbol) in self.symbols.iter().enumerate() {
            if position % 4 == 0 {
                text.push('-');
            }
            text.push(ALPHABET[usize::from(symbol & 31)] as char);
        }
        text
    }
}

impl fmt::Debug for ShortCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ShortCode({:02}-…)", self.nameplate)
    }
}

fn value(character: char) -> Option<u8> {
    let upper = match character.to_ascii_uppercase() {
        'O' => '0',
        'I' | 'L' => '1',
        other => other,
    };
    let byte = u8::try_from(upper).ok()?;
    ALPHABET
        .iter()
        .position(|symbol| *symbol == byte)
        .map(|index| index as u8)
}

/// Σ αⁱ·cᵢ over GF(32): any one wrong symbol and any two exchanged ones change it, as the powers of α differ.
fn check_symbol(nameplate: u8, symbols: &[u8; SYMBOLS]) -> u8 {
    let digits = [nameplate / 10, nameplate % 10];
    // Doubled after each symbol: the last is weighted α, and not 1 like the check symbol itself.
    digits
        .iter()
        .chain(&symbols[..SYMBOLS - 1])
        .fold(0, |sum, symbol| double(sum ^ symbol))
}

/// Multiplication by α in GF(32) with the polynomial x⁵ + x² + 1.
fn double(value: u8) -> u8 {
    let shifted = value << 1;
    if shifted & 32 != 0 {
        shifted ^ 0b10_0101
    } else {
        shifted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    fn code(seed: u64) -> ShortCode {
        ShortCode::generate(&mut ChaCha20Rng::seed_from_u64(seed))
    }

    #[test]
    fn frozen_code() {
        let code = ShortCode::parse("427gkdm3xp").unwrap();
        assert_eq!(code.to_text(), "42-7GKD-M3XP");
        assert_eq!(code.nameplate(), 42);
    }

    #[test]
    fn typing_is_forgiven_case_spaces_dashes_and_lookalikes() {
        let text = (0..)
            .map(|seed| code(seed).to_text())
            .find(|text| text.contains('0') && text.contains('1'))
            .unwrap();
        let sloppy = format!(
            " {} ",
            text.to_lowercase()
                .replace('0', "o")
                .replace('1', "l")
                .replace('-', " – ")
        );
        assert_eq!(ShortCode::parse(&sloppy), ShortCode::parse(&text));
        assert!(ShortCode::parse(&text).is_ok());
    }

    #[test]
    fn wrong_codes_say_what_is_wrong() {
        assert_eq!(ShortCode::parse(""), Err(CodeError::Length));
        assert_eq!(ShortCode::parse("42-7GKD-M3XP-9"), Err(CodeError::Length));
        assert_eq!(
            ShortCode::parse("42-7GKD-M3X!"),
            Err(CodeError::Character('!'))
        );
        assert_eq!(ShortCode::parse("4A-7GKD-M3XH"), Err(CodeError::Mistyped));
    }

    #[test]
    fn debug_hides_the_secret() {
        let code = code(1);
        assert!(!format!("{code:?}").contains(&code.to_text()[3..]));
    }

    proptest! {
        #[test]
        fn every_code_reads_back(seed: u64) {
            let code = code(seed);
            prop_assert_eq!(ShortCode::parse(&code.to_text()), Ok(code));
        }

        #[test]
        fn one_wrong_symbol_is_noticed(seed: u64, at in 0usize..10, by in 1u8..32) {
            let text = code(seed).to_text().replace('-', "");
            let mut symbols: Vec<u8> = text.bytes().collect();
            let old = value(symbols[at] as char).unwrap();
            symbols[at] = ALPHABET[usize::from(old ^ by)];
            let typed = String::from_utf8(symbols).unwrap();
            prop_assert_eq!(ShortCode::parse(&typed), Err(CodeError::Mistyped));
        }

        #[test]
        fn two_exchanged_symbols_are_noticed(seed: u64, a in 0usize..10, b in 0usize..10) {
            let text = code(seed).to_text().replace('-', "");
            let mut symbols: Vec<u8> = text.bytes().collect();
            prop_assume!(symbols[a] != symbols[b]);
            symbols.swap(a, b);
            let typed = String::from_utf8(symbols).unwrap();
            prop_assert_eq!(ShortCode::parse(&typed), Err(CodeError::Mistyped));
        }

        #[test]
        fn no_typed_text_panics(text in ".{0,40}") {
            let _ = ShortCode::parse(&text);
        }
    }
}
