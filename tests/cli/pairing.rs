//! Letting a device in, and keeping others out.

use std::io::Write;
use std::net::TcpStream;

use crate::device::{Device, Invitation, eventually, pair_of_devices};

#[test]
fn device_joins_by_link() {
    let (first, second) = pair_of_devices();
    for device in [&first, &second] {
        let devices = device.rows(&["device", "list"]);
        let mut names: Vec<_> = devices
            .iter()
            .map(|row| row["name"].as_str().unwrap().to_owned())
            .collect();
        names.sort();
        assert_eq!(names, ["first", "second"]);
    }
}

#[test]
fn device_joins_by_the_picture_of_the_qr_code() {
    let first = Device::founded("first");
    let second = Device::waiting("second");
    let picture = first.path("code.png");
    let picture = picture.to_str().unwrap();
    let invitation = Invitation::of(&first, &["--accept", "--png", picture]);
    second.ok(&["join", picture, "--yes", "--name", "second"]);
    assert_eq!(invitation.end().code, Some(0));
    second.in_sync();
}

#[test]
fn device_joins_by_typed_code() {
    let first = Device::founded("first");
    let second = Device::waiting("second");
    let invitation = Invitation::of(&first, &["--accept", "second"]);
    let at = format!("127.0.0.1:{}", first.port());
    // As a person types it: small letters, blanks for the dashes.
    let typed = invitation.code.to_lowercase().replace('-', " ");
    let mut arguments = vec!["join"];
    arguments.extend(typed.split(' '));
    arguments.extend(["--at", &at, "--name", "second", "--yes"]);
    second.ok(&arguments);
    assert_eq!(invitation.end().code, Some(0));
    second.in_sync();
}

#[test]
fn link_works_once() {
    let first = Device::founded("first");
    let second = Device::waiting("second");
    let third = Device::waiting("third");
    let invitation = Invitation::of(&first, &["--accept"]);
    let link = invitation.link.clone();
    second.ok(&["join", &link, "--yes"]);
    assert_eq!(invitation.end().code, Some(0));
    third.run(&["join", &link, "--yes"]).fails(7, "coffer pair");
    nothing_was_learned(&third, &first, 2);
}

#[test]
fn invitation_that_has_expired_is_refused_and_said_so_on_both_sides() {
    let first = Device::founded("first");
    let second = Device::waiting("second");
    let invitation = Invitation::of(&first, &["--accept", "--valid-for", "1s"]);
    let (link, code) = (invitation.link.clone(), invitation.code.clone());
    let ends = |name: &str| invitation.said[name].as_u64().unwrap();
    assert_eq!(ends("code_expires_ms"), ends("expires_ms"));
    invitation.end().fails(7, "in time");
    second
        .run(&["join", &link, "--yes"])
        .fails(7, "has expired");
    let at = format!("127.0.0.1:{}", first.port());
    let outcome = second.run(&["join", &code, "--at", &at, "--yes"]);
    assert!([Some(3), Some(7)].contains(&outcome.code), "{outcome:?}");
    nothing_was_learned(&second, &first, 1);
}

#[test]
fn link_taken_back_lets_nobody_in() {
    let first = Device::founded("first");
    let second = Device::waiting("second");
    let invitation = Invitation::of(&first, &["--accept"]);
    let link = invitation.link.clone();
    invitation.take_back();
    eventually("the invitation is forgotten", || {
        second.run(&["join", &link, "--yes"]).code == Some(7)
    });
    nothing_was_learned(&second, &first, 1);
}

#[test]
fn damaged_and_foreign_links_are_told_apart() {
    let first = Device::founded("first");
    let second = Device::waiting("second");
    let invitation = Invitation::of(&first, &["--accept"]);
    let link = invitation.link.clone();
    let cut = &link[..link.len() - 4];
    let mut altered = link.clone().into_bytes();
    let at = altered.len() - 30;
    altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
    let altered = String::from_utf8(altered).unwrap();
    let newer = link.replace("coffer:pair/1/", "coffer:pair/9/");
    for (given, code, said) in [
        (cut, 15, "damaged"),
        (altered.as_str(), 15, "damaged"),
        ("coffer:pair/1/AAAA", 15, "damaged"),
        (newer.as_str(), 16, "newer"),
        ("coffer:hello", 2, "not a coffer pairing link"),
        ("https://example.org/x", 3, "give the link"),
        ("no such picture.png", 3, "there is no file"),
        ("!!", 15, "neither a link"),
    ] {
        let outcome = second.run(&["join", given, "--yes"]);
        assert_eq!(outcome.code, Some(code), "{given}: {outcome:?}");
        assert!(outcome.err.contains(said), "{given}: {outcome:?}");
    }
    // None of them used it up.
    second.ok(&["join", &link, "--yes"]);
    assert_eq!(invitation.end().code, Some(0));
}

#[test]
fn picture_without_a_code_is_told_so() {
    let device = Device::waiting("second");
    let blank = device.path("blank.png");
    image::GrayImage::from_pixel(120, 120, image::Luma([255]))
        .save(&blank)
        .unwrap();
    device
        .run(&["join", blank.to_str().unwrap()])
        .fails(15, "the whole code");
    let foreign = device.path("foreign.png");
    let modules = qrcode::QrCode::new("https://example.org").unwrap();
    let width = modules.width();
    let colors = modules.to_colors();
    let side = u32::try_from(width + 8).unwrap() * 4;
    image::GrayImage::from_fn(side, side, |x, y| {
        let module = |at: u32| usize::try_from(at / 4).unwrap().checked_sub(4);
        let dark = match (module(x), module(y)) {
            (Some(x), Some(y)) if x < width && y < width => {
                colors[y * width + x] == qrcode::Color::Dark
            }
            _ => false,
        };
        image::Luma([if dark { 0 } else { 255 }])
    })
    .save(&foreign)
    .unwrap();
    device
        .run(&["join", foreign.to_str().unwrap()])
        .fails(15, "another QR code");
    let text = device.path("text.png");
    std::fs::write(&text, "no picture at all").unwrap();
    let outcome = device.run(&["join", text.to_str().unwrap()]);
    assert_eq!(outcome.code, Some(15), "{outcome:?}");
}

#[test]
fn wrong_code_is_refused_and_ends_the_code() {
    let first = Device::founded("first");
    let stranger = Device::waiting("stranger");
    let second = Device::waiting("second");
    let invitation = Invitation::of(&first, &["--accept"]);
    let at = format!("127.0.0.1:{}", first.port());
    // A slip of the fingers is noticed before anything is sent, and so costs nothing.
    let right = invitation.code.clone();
    let mut refused = None;
    let mut mistyped = 0;
    for last in "0123456789ABCDEFGHJKMNPQRSTVWXYZ".chars() {
        let other = if right.as_bytes()[3] == b'A' {
            'B'
        } else {
            'A'
        };
        let guess = format!("{}{other}{}{last}", &right[..3], &right[4..right.len() - 1]);
        let outcome = stranger.run(&["join", &guess, "--at", &at, "--yes"]);
        match outcome.code {
            Some(2) => mistyped += 1,
            _ => {
                refused = Some(outcome);
                break;
            }
        }
    }
    let refused = refused.expect("one of 32 last characters fits");
    assert_eq!(refused.code, Some(5), "{refused:?}");
    assert!(refused.err.contains("code"), "{refused:?}");
    assert!(mistyped < 32);
    // One guess is all that a code allows: from here on the right one is worth nothing.
    let late = second.run(&["join", &right, "--at", &at, "--yes"]);
    assert_ne!(late.code, Some(0), "{late:?}");
    nothing_was_learned(&stranger, &first, 1);
    nothing_was_learned(&second, &first, 1);
}

#[test]
fn device_that_a_person_refuses_learns_nothing() {
    let first = Device::founded("first");
    first.ok(&["doc", "put", "t", "secret", "{\"n\":1}"]);
    let stranger = Device::waiting("stranger");
    let invitation = Invitation::of(&first, &["--accept", "somebody-else"]);
    stranger
        .run(&["join", &invitation.link, "--name", "stranger", "--yes"])
        .fails(5, "error: ");
    assert_eq!(invitation.end().code, Some(5));
    nothing_was_learned(&stranger, &first, 1);
}

#[test]
fn device_with_a_vault_that_holds_something_keeps_it() {
    let first = Device::founded("first");
    let other = Device::founded("other");
    other.ok(&["doc", "put", "t", "mine", "{\"n\":1}"]);
    let invitation = Invitation::of(&first, &["--accept"]);
    other
        .run(&["join", &invitation.link, "--yes"])
        .fails(4, "a vault already");
    assert_eq!(other.row(&["doc", "get", "t", "mine"])["value"]["n"], 1);
    assert_eq!(other.rows(&["device", "list"]).len(), 1);
}

#[test]
fn nobody_is_let_in_where_nobody_can_answer() {
    let first = Device::founded("first");
    first.run(&["pair"]).fails(2, "--accept");
}

#[test]
fn garbage_on_the_port_changes_nothing() {
    let (first, second) = pair_of_devices();
    for at in 0..20u8 {
        let mut stream = TcpStream::connect(("127.0.0.1", first.port())).unwrap();
        let bytes = crate::device::noise(u64::from(at), 20_000);
        // It hangs up in the middle, as it should.
        let _ = stream.write_all(&bytes);
    }
    first.ok(&["doc", "put", "t", "a", "{\"n\":1}"]);
    first.in_sync();
    assert_eq!(second.row(&["doc", "get", "t", "a"])["value"]["n"], 1);
    assert_eq!(first.rows(&["device", "list"]).len(), 2);
}

#[test]
fn stranger_that_knows_the_address_gets_nothing_and_puts_nothing_in() {
    // Both found vaults; the stranger learns the other's address and identity from an invitation that it does not get
    // to use, and lives on beside it.
    let (first, second) = pair_of_devices();
    let stranger = Device::waiting("stranger");
    let invitation = Invitation::of(&first, &["--accept", "somebody-else"]);
    stranger
        .run(&["join", &invitation.link, "--name", "stranger", "--yes"])
        .fails(5, "error: ");
    drop(invitation);
    stranger.ok(&["init", "--name", "stranger"]);
    stranger.ok(&["doc", "put", "t", "intruding", "{\"n\":1}"]);
    first.ok(&["doc", "put", "t", "ours", "{\"n\":1}"]);
    first.in_sync();
    for device in [&first, &second] {
        let ids: Vec<_> = device.rows(&["doc", "list", "t"]);
        assert_eq!(ids.len(), 1, "{ids:?}");
        assert_eq!(device.rows(&["device", "list"]).len(), 2);
    }
    let theirs = stranger.rows(&["doc", "list", "t"]);
    assert_eq!(theirs.len(), 1, "{theirs:?}");
    assert_eq!(theirs[0]["id"], "intruding");
    assert_eq!(stranger.rows(&["device", "list"]).len(), 1);
}

/// The one that was kept out has no vault, and the other still has as many devices as before.
fn nothing_was_learned(outside: &Device, inside: &Device, devices: usize) {
    outside.run(&["doc", "list"]).fails(11, "vault");
    assert_eq!(outside.status()["vault"], serde_json::Value::Null);
    assert_eq!(inside.rows(&["device", "list"]).len(), devices);
}
