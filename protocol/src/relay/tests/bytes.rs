//! Frozen bytes, and bytes from strangers.

use proptest::prelude::*;

use super::*;
use crate::codec::{self, CodecError};
use crate::identity::DeviceId;
use crate::signed::SignedError;

const LINK: &str = "coffer:relay/1/AH6ROJBYLKQMOW3E7N4M2YBPUHMZD7PL65VRHRMO24BOVSBV5H3BQBLBOR2GSYYBDMXWI3TTGQXWQ33TOQXGK6DBNVYGYZJPORRXALZUGI2DFSGJZLF4ZTOOZ7INDUWT2TK5NV6Y3HNNXXG533P6BYPC4PSOLZXHQCAIBABIQCKIHOMXGSCXOK4X";
const STATEMENT: &str = include_str!("../../../frozen/v1/host-statement.hex");
const ORDER: &str = include_str!("../../../frozen/v1/erase-order.hex");
const RECEIPT: &str = include_str!("../../../frozen/v1/erase-receipt.hex");

fn frozen(hex: &str) -> Vec<u8> {
    hex::decode(hex.split_whitespace().collect::<String>()).unwrap()
}

#[test]
fn frozen_invitation() {
    assert_eq!(invitation().to_link(), LINK);
    assert_eq!(HostInvitation::parse(LINK, 0), Ok(invitation()));
    assert_eq!(
        HostInvitation::parse(&invitation().to_qr_text(), 0),
        Ok(invitation())
    );
    assert_eq!(
        invitation().id().to_string(),
        "5846171ef91c393353b38b73af5d26ec7729ceb9ea8c3a3b2b4fccc3cca46552"
    );
}

#[test]
fn frozen_statement_order_and_receipt() {
    let statement = said(state(3, clock(&[(1, 300)])));
    assert_eq!(
        hex::encode(statement.bytes()),
        hex::encode(frozen(STATEMENT))
    );
    assert_eq!(HostStatement::decode(&frozen(STATEMENT)), Ok(statement));
    let order = order(STORE);
    assert_eq!(hex::encode(order.bytes()), hex::encode(frozen(ORDER)));
    let receipt = receipt(&order);
    assert_eq!(hex::encode(receipt.bytes()), hex::encode(frozen(RECEIPT)));
    assert_eq!(SignedReceipt::read(&frozen(RECEIPT), &order), Ok(receipt));
}

#[test]
fn frozen_requests() {
    let v = "07".repeat(32);
    let id = "22".repeat(32);
    let ids = vec![Hash([0x22; 32])];
    for (request, bytes) in [
        (
            Request::Have {
                vault: VAULT,
                ids: ids.clone(),
                claim: true,
            },
            format!("00{v}01{id}01"),
        ),
        (
            Request::Put {
                vault: VAULT,
                count: 2,
                bytes: 300,
            },
            format!("01{v}02ac02"),
        ),
        (
            Request::List {
                vault: VAULT,
                after: ids[0],
                max: 8192,
            },
            format!("02{v}{id}8040"),
        ),
        (
            Request::Release {
                vault: VAULT,
                ids: ids.clone(),
            },
            format!("03{v}01{id}"),
        ),
        (
            Request::Range {
                vault: VAULT,
                id: ids[0],
                offset: 300,
                len: 16,
            },
            format!("04{v}{id}ac0210"),
        ),
        (Request::Erase { order: vec![1, 2] }, "05020102".to_owned()),
    ] {
        assert_eq!(hex::encode(request.encode()), bytes);
        assert_eq!(Request::decode(&request.encode()), Ok(request));
    }
    let header = PutHeader {
        id: ids[0],
        len: 0x0102,
    };
    assert_eq!(hex::encode(header.encode()), format!("{id}02010000"));
    assert_eq!(PutHeader::decode(&header.encode()), Ok(header));
}

#[test]
fn frozen_answers() {
    let id = "22".repeat(32);
    for (answer, bytes) in [
        (
            Answer::Have(Bitmap::new([
                true, false, false, true, false, false, false, false, true,
            ])),
            "00020901".to_owned(),
        ),
        (
            Answer::Stored {
                used_bytes: 300,
                quota_bytes: 1,
            },
            "01ac0201".into(),
        ),
        (Answer::Listed(vec![Hash([0x22; 32])]), format!("0201{id}")),
        (Answer::Released, "03".into()),
        (
            Answer::Range(Some(RangeBytes(vec![1, 2]))),
            "0401020102".into(),
        ),
        (Answer::Range(None), "0400".into()),
        (Answer::Erased(vec![9]), "050109".into()),
        (
            Answer::Refused {
                why: Refusal::FULL,
                used_bytes: 5,
                quota_bytes: 4,
            },
            "06020504".into(),
        ),
    ] {
        assert_eq!(hex::encode(answer.encode()), bytes);
        assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
    }
}

#[test]
fn frozen_conversation_of_joining() {
    let (mut device, first) = DeviceSide::by_invitation(VAULT, host_key().id(), &invitation());
    let DeviceStep::Send(join) = &first[0] else {
        panic!("{first:?}");
    };
    let secret = hex::encode(invitation().secret);
    assert_eq!(
        hex::encode(join),
        format!("000101{}01{secret}", "07".repeat(32))
    );
    let mut host = HostSide::new(host_key().id(), key(1).id());
    host.on_message(join);
    let welcome = host.stands(Standing::Welcome(Box::new(Host {
        sealing: sealing(9),
        name: "attic".into(),
        quota_bytes: 300,
        store: STORE,
    })));
    let HostStep::Send(welcome) = &welcome[0] else {
        panic!("{welcome:?}");
    };
    let key = hex::encode(sealing(9).as_bytes());
    let name = hex::encode("attic");
    assert_eq!(
        hex::encode(welcome),
        format!("0001c009{key}05{name}ac02{}", "08".repeat(16))
    );
    device.on_message(welcome);
    let bind = device.admitted(Some(vec![vec![1, 2]]));
    assert_eq!(bind, [DeviceStep::Send(vec![1, 1, 2, 1, 2])]);
    assert!(matches!(
        device.on_message(&[1])[..],
        [DeviceStep::Bound(_)]
    ));
    let (mut device, _) = DeviceSide::as_member(VAULT);
    assert_eq!(
        device.on_message(&[2, 3]),
        [DeviceStep::Failed(JoinError::Used)]
    );
}

#[test]
fn each_kind_of_bad_invitation_is_named() {
    let link = invitation().to_link();
    for (text, error) in [
        ("", HostLinkError::Foreign),
        ("coffer:pair/1/AEAACAQD", HostLinkError::Foreign),
        ("coffer:relay/", HostLinkError::Damaged),
        ("coffer:relay/2/ABC", HostLinkError::Newer),
        (&link[..link.len() - 2], HostLinkError::Damaged),
    ] {
        assert_eq!(HostInvitation::parse(text, 0), Err(error), "{text}");
    }
    assert_eq!(
        HostInvitation::parse(&link, invitation().expires_ms),
        Err(HostLinkError::Expired)
    );
}

#[test]
fn an_invitation_holds_only_what_can_be_shown() {
    let made = HostInvitation::new(
        host_key().id(),
        " at\u{1b}[2Jtic\u{202e} ",
        &["/dns/a\u{1b}[2J/tcp/1".into(), "/dns4/a/tcp/1".into()],
        1,
        2,
        &mut rng(4),
    );
    assert_eq!(made.name, "at[2Jtic");
    assert_eq!(made.addresses, ["/dns4/a/tcp/1"]);
    let mut bad = invitation();
    bad.name = "a\u{202e}b".into();
    assert_eq!(
        HostInvitation::parse(&bad.to_link(), 0),
        Err(HostLinkError::Damaged)
    );
    assert!(!format!("{:?}", invitation()).contains("secret"));
}

#[test]
fn each_bound_is_kept() {
    let ids = |count| vec![Hash::ZERO; count];
    let have = |count| Request::Have {
        vault: VAULT,
        ids: ids(count),
        claim: false,
    };
    assert!(Request::decode(&have(MAX_HAVE).encode()).is_ok());
    assert!(Request::decode(&have(MAX_HAVE + 1).encode()).is_err());
    let release = |count| Request::Release {
        vault: VAULT,
        ids: ids(count),
    };
    assert!(Request::decode(&release(MAX_RELEASE).encode()).is_ok());
    assert!(Request::decode(&release(MAX_RELEASE + 1).encode()).is_err());
    assert!(Answer::decode(&Answer::Listed(ids(MAX_LIST)).encode()).is_ok());
    assert!(Answer::decode(&Answer::Listed(ids(MAX_LIST + 1)).encode()).is_err());
    for (count, bytes) in [(0, 1), (4097, 1), (1, MAX_PUT_BYTES + 1)] {
        let put = Request::Put {
            vault: VAULT,
            count,
            bytes,
        };
        assert_eq!(Request::decode(&put.encode()), Err(CodecError::Malformed));
    }
    let mut header = [0; PutHeader::LEN];
    assert!(PutHeader::decode(&header).is_err());
    header[PutHeader::LEN - 1] = 0xff;
    assert!(PutHeader::decode(&header).is_err());
}

#[test]
fn a_header_fits_only_the_bytes_that_it_announces() {
    let bytes = b"sealed";
    let header = PutHeader {
        id: Hash(*blake3::hash(bytes).as_bytes()),
        len: 6,
    };
    assert!(header.fits(bytes));
    assert!(!header.fits(b"sealer"));
    assert!(!header.fits(b"seale"));
}

#[test]
fn an_order_counts_for_one_store_of_one_host() {
    let bytes = order(STORE);
    let (vault, host) = (VAULT, host_key().id());
    assert!(SignedOrder::read(bytes.bytes(), &vault, &host, &STORE).is_ok());
    for (vault, host, store) in [
        (VaultId::NONE, host, STORE),
        (vault, key(1).id(), STORE),
        (vault, host, StoreId([0; 16])),
    ] {
        assert_eq!(
            SignedOrder::read(bytes.bytes(), &vault, &host, &store),
            Err(EraseError::Unrelated)
        );
    }
    let other = order(StoreId([1; 16]));
    assert_eq!(
        SignedReceipt::read(receipt(&other).bytes(), &bytes),
        Err(EraseError::Unrelated)
    );
}

proptest! {
    #[test]
    fn every_bitmap_reads_back(bits in prop::collection::vec(any::<bool>(), 0..70)) {
        let map = Bitmap::new(bits.iter().copied());
        prop_assert!(map.fits(bits.len()));
        prop_assert!(bits.is_empty() || !map.fits(bits.len() + 8));
        for (at, bit) in bits.iter().enumerate() {
            prop_assert_eq!(map.get(at), *bit);
        }
        prop_assert!(!map.get(bits.len()));
    }

    #[test]
    fn a_bitmap_with_stray_bits_does_not_fit(count in 1usize..64, extra in 0usize..8) {
        let len = count.div_ceil(8) * 8;
        let stray = (count + extra).min(len);
        let map = Bitmap::new((0..len).map(|at| at == stray));
        prop_assert_eq!(map.fits(count), stray == len);
    }

    #[test]
    fn whatever_decodes_is_canonical(bytes in prop::collection::vec(any::<u8>(), 0..160)) {
        if let Ok(request) = Request::decode(&bytes) {
            prop_assert_eq!(request.encode(), bytes.clone());
            let _ = request.vault();
        }
        if let Ok(answer) = Answer::decode(&bytes) {
            prop_assert_eq!(answer.encode(), bytes.clone());
        }
        let _ = HostStatement::decode(&bytes);
        let _ = SignedOrder::decode(&bytes);
        let _ = SignedReceipt::decode(&bytes);
    }

    #[test]
    fn no_bytes_panic_either_side_of_joining(
        messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..4),
    ) {
        let (mut device, _) = DeviceSide::as_member(VAULT);
        let mut host = HostSide::new(host_key().id(), DeviceId([1; 32]));
        for message in messages {
            device.on_message(&message);
            host.on_message(&message);
        }
    }

    #[test]
    fn a_changed_statement_is_refused(at in 0usize..200, flip in 1u8..) {
        let mut bytes = said(state(3, clock(&[(1, 300)]))).bytes().to_vec();
        prop_assume!(at < bytes.len());
        bytes[at] ^= flip;
        prop_assert!(HostStatement::decode(&bytes).is_err());
    }

    #[test]
    fn every_invitation_reads_back(
        name in "[a-z]{1,64}",
        addresses in proptest::collection::vec("[!-~]{1,40}", 0..=MAX_HOST_ADDRESSES),
        secret: [u8; 32],
        quota_bytes: u64,
        expires_ms in 1u64..,
    ) {
        let mut invitation = invitation();
        (invitation.name, invitation.addresses) = (name, addresses);
        (invitation.secret, invitation.quota_bytes) = (secret, quota_bytes);
        invitation.expires_ms = expires_ms;
        prop_assert_eq!(HostInvitation::parse(&invitation.to_link(), 0), Ok(invitation));
    }

    #[test]
    fn no_text_panics(text in "(coffer:relay/1/)?.{0,80}") {
        let _ = HostInvitation::parse(&text, 0);
    }

    #[test]
    fn a_later_format_is_called_newer(version in 2u16..) {
        let bytes = codec::encode(&(version, [0u8; 30]));
        let newer = matches!(
            HostStatement::decode(&bytes),
            Err(SignedError::Codec(CodecError::Newer { .. }))
        );
        prop_assert!(newer);
    }
}
