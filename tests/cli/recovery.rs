//! The recovery kit: printed, tried, replaced, and a vault that comes back with it.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use image::{GrayImage, Luma};

use crate::device::{Device, Outcome, eventually, noise, write};
use crate::host::Host;
use crate::printing::print;
use crate::secrets::{in_a_terminal, words_of};

/// Pixels for each module of the code.
const SCALE: u32 = 4;

/// Runs a command with the words and the vault's id on standard input.
pub fn with_words(device: &Device, arguments: &[&str], words: &[String], vault: &str) -> Outcome {
    let mut command = device.command(arguments);
    let mut child = command.stdin(Stdio::piped()).spawn().expect("coffer runs");
    let mut input = child.stdin.take().expect("a pipe");
    // A command that refuses before it reads is fine.
    let _ = writeln!(input, "{}\n{vault}", words.join(" "));
    drop(input);
    Outcome::of(child.wait_with_output().expect("it ends"))
}

pub fn vault_of(device: &Device) -> String {
    device.status()["vault"]["id"].as_str().unwrap().to_owned()
}

/// What a camera sees of the code on the page.
fn photograph(page: &Path, picture: &Path) {
    let html = std::fs::read_to_string(page).unwrap();
    let side = html.split("viewBox=\"0 0 ").nth(1).unwrap();
    let side: u32 = side.split(' ').next().unwrap().parse().unwrap();
    let mut image = GrayImage::from_pixel(side * SCALE, side * SCALE, Luma([255]));
    let path = html.split("<path d=\"").nth(1).unwrap();
    let path = path.split('"').next().unwrap();
    for module in path.split('M').skip(1) {
        let (x, rest) = module.split_once(' ').unwrap();
        let y = rest.split('h').next().unwrap();
        let (x, y): (u32, u32) = (x.parse().unwrap(), y.parse().unwrap());
        for (dx, dy) in (0..SCALE).flat_map(|dx| (0..SCALE).map(move |dy| (dx, dy))) {
            image.put_pixel(x * SCALE + dx, y * SCALE + dy, Luma([0]));
        }
    }
    image.save(picture).unwrap();
}

#[test]
fn all_comes_back_from_a_host_with_the_printed_page_when_every_device_is_gone() {
    let host = Host::started();
    let mut lost = Device::founded("lost");
    lost.ok(&["relay", "add", &host.invite("1GiB")]);
    lost.ok(&["doc", "put", "notes", "ada", r#"{"text":"still here"}"#]);
    let bytes = noise(5, 300_000);
    write(&lost.path("a.bin"), &bytes);
    lost.ok(&["file", "add", lost.path("a.bin").to_str().unwrap()]);
    eventually("the host holds everything", || {
        lost.status()["hosts"][0]["holding"]["everything"] == true
    });
    let page = lost.path("kit.html");
    let page_text = page.to_str().unwrap();
    in_a_terminal(&lost, &["recovery", "show", "--page", page_text]);
    let vault = vault_of(&lost);
    lost.stop();
    std::fs::remove_dir_all(&lost.data).unwrap();

    let new = Device::waiting("new");
    let picture = new.path("kit.png");
    photograph(&page, &picture);
    let back = new.row(&["recover", picture.to_str().unwrap(), "--name", "new"]);
    assert_eq!(back["vault"], vault.as_str());
    assert_eq!(
        (&back["sources"], &back["confirmed"]),
        (&1.into(), &false.into())
    );
    eventually("the document is back", || {
        let text = new.run(&["doc", "get", "notes", "ada"]);
        text.out.contains("still here")
    });
    eventually("the file is back", || {
        let got = new.path("got.bin");
        let got = got.to_str().unwrap();
        new.run(&["file", "get", "a.bin", got, "--overwrite"]).code == Some(0)
            && std::fs::read(got).unwrap() == bytes
    });
    let warnings = new.status()["warnings"].to_string();
    assert!(warnings.contains("not-confirmed-fresh"), "{warnings}");
    new.ok(&["device", "revoke", "lost", "--yes"]);
    new.ok(&["doc", "put", "notes", "after", "{}"]);
    eventually("the host has what is new", || {
        new.status()["hosts"][0]["holding"]["everything"] == true
    });
}

#[test]
fn all_comes_back_with_the_page_as_a_browser_prints_it() {
    let left = Device::founded("left");
    left.ok(&["doc", "put", "notes", "ada", r#"{"text":"still here"}"#]);
    let page = left.path("kit.html");
    in_a_terminal(
        &left,
        &["recovery", "show", "--page", page.to_str().unwrap()],
    );
    let vault = vault_of(&left);
    let picture = print(&page, &left.path("printed"));

    let new = Device::waiting("new");
    let at = format!("127.0.0.1:{}", left.port());
    let picture = picture.to_str().unwrap();
    let back = new.row(&["recover", picture, "--at", &at, "--name", "new"]);
    assert_eq!(back["vault"], vault.as_str());
    eventually("the document is back", || {
        let text = new.run(&["doc", "get", "notes", "ada"]);
        text.out.contains("still here")
    });
}

#[test]
fn a_device_that_is_left_lets_in_who_has_the_words_and_nobody_else() {
    let left = Device::founded("left");
    left.ok(&["doc", "put", "notes", "ada", r#"{"text":"still here"}"#]);
    let words = words_of(&in_a_terminal(&left, &["recovery", "show"]));
    let vault = vault_of(&left);
    let at = format!("127.0.0.1:{}", left.port());
    let arguments = ["recover", "--at", &at, "--json"];
    let new = Device::waiting("new");

    let other = Device::founded("other");
    let wrong = words_of(&in_a_terminal(&other, &["recovery", "show"]));
    with_words(&new, &arguments, &wrong, &vault).fails(5, "words");
    with_words(&new, &arguments, &words, &vault_of(&other)).fails(5, "words");
    with_words(&new, &arguments, &words[1..], &vault).fails(2, "24 words");
    assert_eq!(left.rows(&["device", "list"]).len(), 1);

    let back = with_words(&new, &arguments, &words, &vault);
    assert_eq!(back.code, Some(0), "{}", back.err);
    eventually("the document is back", || {
        let text = new.run(&["doc", "get", "notes", "ada"]);
        text.out.contains("still here")
    });
    new.ok(&["doc", "put", "notes", "new", "{}"]);
    eventually("what is written there arrives", || {
        left.run(&["doc", "get", "notes", "new"]).code == Some(0)
    });
    let log = left.rows(&["device", "log"]);
    let admitted = log.iter().find(|row| row["what"] == "admitted").unwrap();
    assert_eq!(admitted["by"], "the words on paper");
}

#[test]
fn a_kit_is_tried_without_changing_anything_and_other_words_take_its_place() {
    let device = Device::founded("first");
    let words = words_of(&in_a_terminal(&device, &["recovery", "show"]));
    let vault = vault_of(&device);
    assert!(device.status()["rehearsed_ms"].is_null());
    let rehearse = ["recovery", "rehearse", "--json"];
    let log = device.rows(&["device", "log"]);
    let tried = with_words(&device, &rehearse, &words, &vault);
    assert_eq!(tried.code, Some(0), "{}", tried.err);
    assert!(device.status()["rehearsed_ms"].is_u64());
    assert_eq!(device.rows(&["device", "log"]), log);

    let newer = words_of(&in_a_terminal(&device, &["recovery", "renew"]));
    assert_eq!(newer.len(), 24);
    assert_ne!(newer, words);
    with_words(&device, &rehearse, &words, &vault).fails(5, "replaced");
    let tried = with_words(&device, &rehearse, &newer, &vault);
    assert_eq!(tried.code, Some(0), "{}", tried.err);
}
