//! The brake, on running engines: what looks like a disaster is not passed on, and can be taken back.
//!
//! On one thread: an engine goes on only while a test waits for something, so that what a test does without waiting happens
//! at once for it, however busy the machine is.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::super::{Activity, FolderVault, Release, Released, Unreleased};
use super::cloud::Cloud;
use super::running::{Device, pair, sync};

const FILES: usize = 60;

fn name(n: usize) -> String {
    format!("d{}/{n}.txt", n % 3)
}

/// Two devices with the same sixty files.
async fn filled() -> (Device, Device) {
    let (a, b, _) = filled_from_cloud().await;
    (a, b)
}

async fn filled_from_cloud() -> (Device, Device, Arc<Cloud>) {
    let (a, b, cloud) = pair().await;
    for n in 0..FILES {
        a.write(&name(n), &format!("content {n}"));
    }
    sync(&a, &b).await;
    assert_eq!(b.listing().len(), FILES + 3);
    (a, b, cloud)
}

fn delete(device: &Device, files: std::ops::Range<usize>) {
    for n in files {
        std::fs::remove_file(device.path(&name(n))).unwrap();
    }
}

async fn braked(device: &Device, gone: u64, rewritten: u64) {
    device
        .until(|state| {
            let brake = state.brake.as_ref();
            state.activity == Activity::Braked
                && brake.is_some_and(|brake| (brake.gone, brake.rewritten) == (gone, rewritten))
        })
        .await;
}

fn kept(device: &Device) -> Vec<String> {
    let folder = std::fs::read_dir(device.path(".vault/kept")).unwrap();
    let mut all: Vec<String> = folder
        .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    all.sort();
    all
}

#[tokio::test]
async fn half_of_the_files_deleted_at_once_are_not_deleted_elsewhere_and_come_back() {
    let (mut a, b) = filled().await;
    let before = a.listing();
    let operations = a.vault.operations();
    delete(&a, 0..30);
    braked(&a, 30, 0).await;
    assert_eq!(
        a.vault.operations(),
        operations,
        "nothing of it is recorded"
    );
    let state = a.handle().state().borrow().clone();
    assert_eq!(state.brake.unwrap().names.len(), 20);
    // Neither a restart nor what others do meanwhile changes that.
    a.stop().await;
    b.write("d0/0.txt", "changed by the other");
    b.settled().await;
    a.vault.pull(&b.vault);
    a.start().await;
    braked(&a, 30, 0).await;
    assert!(!a.path("d0/0.txt").exists());
    let released = a.handle().release(Release::Undo).await;
    assert_eq!(
        released,
        Ok(Released {
            gone: 30,
            rewritten: 0
        })
    );
    a.settled().await;
    let mut expected = before;
    expected.insert("d0/0.txt".into(), Some("changed by the other".into()));
    assert_eq!(a.listing(), expected);
    assert_eq!(
        a.handle().release(Release::Undo).await,
        Err(Unreleased::NotBraked)
    );
}

#[tokio::test]
async fn files_deleted_while_nothing_ran_are_deleted_once_a_person_says_so() {
    let (mut a, b) = filled().await;
    a.stop().await;
    std::fs::remove_dir_all(a.path("d0")).unwrap();
    delete(&a, 1..2);
    let operations = a.vault.operations();
    a.start().await;
    braked(&a, 21, 0).await;
    assert_eq!(a.vault.operations(), operations);
    assert!(a.handle().release(Release::Meant).await.is_ok());
    sync(&a, &b).await;
    assert_eq!(b.listing().len(), FILES - 21 + 2);
    assert_eq!(a.listing(), b.listing());
    // Consent is to what was told, not to what comes after.
    delete(&a, 4..5);
    sync(&a, &b).await;
    let left: Vec<String> = b.listing().into_keys().collect();
    for name in left.iter().filter(|name| name.contains('/')).take(22) {
        std::fs::remove_file(a.path(name)).unwrap();
    }
    // The one before counts: it was within the minute.
    braked(&a, 23, 0).await;
}

#[tokio::test]
async fn most_files_rewritten_at_once_are_not_rewritten_elsewhere_and_come_back() {
    let (a, b) = filled().await;
    let before = a.listing();
    for n in 0..40 {
        // As an encrypting program does: other bytes, another name.
        std::fs::write(a.path(&name(n)), format!("gibberish {n}")).unwrap();
        std::fs::rename(a.path(&name(n)), a.path(&format!("{}.locked", name(n)))).unwrap();
    }
    a.until(|state| state.activity == Activity::Braked).await;
    a.handle().rescan().await;
    braked(&a, 0, 40).await;
    assert!(a.handle().release(Release::Undo).await.is_ok());
    sync(&a, &b).await;
    assert_eq!(a.listing(), before);
    assert_eq!(b.listing(), before);
    let gibberish: Vec<String> = kept(&a)
        .into_iter()
        .filter(|text| text.starts_with("gibberish"))
        .collect();
    assert_eq!(gibberish.len(), 40, "what was rewritten is kept aside");
}

#[tokio::test]
async fn rewritten_files_stay_until_the_contents_before_can_be_had() {
    let (mut a, b, cloud) = filled_from_cloud().await;
    let before = a.listing();
    a.stop().await;
    for n in 0..40 {
        a.write(&name(n), &format!("gibberish {n}"));
    }
    a.start().await;
    braked(&a, 0, 40).await;
    cloud.set_offline(true);
    let rewritten = a.listing();
    assert!(a.handle().release(Release::Undo).await.is_ok());
    a.until(|state| state.activity == Activity::Applying && state.pending_remote == 40)
        .await;
    assert_eq!(a.listing(), rewritten);
    a.stop().await;
    a.start().await;
    cloud.set_offline(false);
    a.handle().retry().await;
    sync(&a, &b).await;
    assert_eq!(a.listing(), before);
    assert_eq!(b.listing(), before);
}

#[tokio::test]
async fn rewriting_that_was_meant_goes_on() {
    let (a, b) = filled().await;
    for n in 0..40 {
        a.write(&name(n), &format!("new {n}"));
    }
    a.until(|state| state.activity == Activity::Braked).await;
    a.handle().rescan().await;
    braked(&a, 0, 40).await;
    assert!(a.handle().release(Release::Meant).await.is_ok());
    sync(&a, &b).await;
    assert_eq!(a.listing(), b.listing());
    assert_eq!(b.listing().get("d0/0.txt"), Some(&Some("new 0".to_owned())));
}

#[tokio::test]
async fn losses_in_small_parts_are_braked_and_all_of_them_are_taken_back() {
    let (a, b) = filled().await;
    let before = a.listing();
    for part in 0..4 {
        delete(&a, part * 5..part * 5 + 5);
        a.settled().await;
    }
    delete(&a, 20..22);
    braked(&a, 22, 0).await;
    assert!(a.handle().release(Release::Undo).await.is_ok());
    sync(&a, &b).await;
    assert_eq!(a.listing(), before);
    assert_eq!(b.listing(), before);
}

#[tokio::test]
async fn files_rewritten_and_renamed_few_by_few_come_back_under_their_names() {
    let (a, b) = filled().await;
    let before = a.listing();
    for part in 0..4 {
        for n in part * 10..part * 10 + 10 {
            std::fs::write(a.path(&name(n)), format!("gibberish {n}")).unwrap();
            std::fs::rename(a.path(&name(n)), a.path(&format!("{}.locked", name(n)))).unwrap();
        }
        if part < 3 {
            a.settled().await;
        }
    }
    a.until(|state| state.activity == Activity::Braked).await;
    a.handle().rescan().await;
    braked(&a, 0, 40).await;
    assert!(a.handle().release(Release::Undo).await.is_ok());
    sync(&a, &b).await;
    assert_eq!(a.listing(), before);
    assert_eq!(b.listing(), before);
}

#[tokio::test]
async fn moves_small_deletions_touched_files_and_what_others_do_are_not_braked() {
    let (a, b) = filled().await;
    std::fs::create_dir(a.path("moved")).unwrap();
    for n in 0..3 {
        std::fs::rename(a.path(&format!("d{n}")), a.path(&format!("moved/d{n}"))).unwrap();
    }
    sync(&a, &b).await;
    assert_eq!(a.listing(), b.listing());
    for n in 0..20 {
        std::fs::remove_file(a.path(&format!("moved/{}", name(n)))).unwrap();
    }
    sync(&a, &b).await;
    assert_eq!(b.listing().len(), FILES - 20 + 4);
    for n in 20..FILES {
        std::fs::write(
            a.path(&format!("moved/{}", name(n))),
            format!("content {n}"),
        )
        .unwrap();
    }
    sync(&a, &b).await;
    // Deleted in the vault: a person's doing elsewhere, carried out here without a question.
    b.write("other", "");
    let moved = b.vault.tree().resolve("moved").unwrap();
    b.vault
        .commit_now(crate::vault::request::CommitRequest {
            operations: vec![crate::vault::request::Operation::TrashFile { id: moved }],
            ..Default::default()
        })
        .unwrap();
    sync(&a, &b).await;
    assert_eq!(
        a.listing(),
        BTreeMap::from([("other".to_owned(), Some(String::new()))])
    );
}

#[tokio::test]
async fn a_brake_comes_off_by_itself_when_the_files_are_back() {
    let (a, b) = filled().await;
    let before = a.listing();
    let elsewhere = a.dir.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let move_all = |from: &Path, to: &Path| {
        for n in 0..30 {
            std::fs::create_dir_all(to.join(name(n)).parent().unwrap()).unwrap();
            std::fs::rename(from.join(name(n)), to.join(name(n))).unwrap();
        }
    };
    move_all(&a.path(""), &elsewhere);
    braked(&a, 30, 0).await;
    move_all(&elsewhere, &a.path(""));
    sync(&a, &b).await;
    assert_eq!(a.listing(), before);
    assert_eq!(b.listing(), before);
}

#[tokio::test]
async fn a_brake_comes_off_when_all_but_a_few_files_that_were_deleted_before_is_back() {
    let (a, b) = filled().await;
    delete(&a, 58..60);
    sync(&a, &b).await;
    let before = a.listing();
    let (whole, elsewhere) = (a.path("d0"), a.dir.path().join("elsewhere"));
    let gone = (0..58).filter(|n| name(*n).starts_with("d0/")).count() as u64;
    std::fs::rename(&whole, &elsewhere).unwrap();
    braked(&a, gone + 2, 0).await;
    std::fs::rename(&elsewhere, &whole).unwrap();
    sync(&a, &b).await;
    assert_eq!(a.listing(), before);
    assert_eq!(b.listing(), before);
}
