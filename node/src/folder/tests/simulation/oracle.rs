//! What must be true at the end of a run, and what must survive a crash.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use coffer_crdt::files::Kind;
use rand_chacha::ChaCha8Rng;

use super::super::super::profile::Profile;
use super::super::super::rules::Rules;
use super::super::super::spelling;
use super::super::cloud::content_hash;
use super::device::Device;
use super::disk::VirtualDisk;
use super::image::{Inode, ROOT};
use super::ledger::Ledger;
use super::network::Network;

/// What a disk shows: files and links with their bytes, and folders with nothing; named as in the vault.
pub type Listing = BTreeMap<String, Option<(bool, Vec<u8>)>>;

pub fn listing(disk: &VirtualDisk, profile: Profile) -> Listing {
    let shown = shown(disk, profile).into_iter();
    shown
        .map(|(path, inode)| {
            let content = match inode.kind {
                Kind::Folder => None,
                Kind::File => Some((inode.mode & 0o100 != 0, inode.bytes.to_vec())),
                Kind::Symlink => Some((false, format!("-> {}", inode.target).into_bytes())),
            };
            (path, content)
        })
        .collect()
}

/// The modification times of the files on a disk, in nanoseconds since 1970; named as in the vault.
pub fn times(disk: &VirtualDisk, profile: Profile) -> BTreeMap<String, i128> {
    let shown = shown(disk, profile).into_iter();
    let files = shown.filter(|(_, inode)| inode.kind == Kind::File);
    files.map(|(path, inode)| (path, inode.mtime_ns)).collect()
}

fn shown(disk: &VirtualDisk, profile: Profile) -> Vec<(String, Inode)> {
    disk.look(|image| {
        let below = image.below(ROOT).into_iter();
        let shown = below.filter(|(path, _)| path != ".vault" && !path.starts_with(".vault/"));
        shown
            .map(|(path, ino)| {
                let names = path.split('/').enumerate();
                let names: Vec<_> = names
                    .map(|(depth, name)| spelling::to_vault(name, depth == 0, profile))
                    .collect();
                (names.join("/"), image.inodes[&ino].clone())
            })
            .collect()
    })
}

/// Files that are shown and whose bytes are nowhere: somebody deleted the only copy, and somebody else had moved the
/// file meanwhile, so that it survives. Nobody can bring them; who has older bytes goes on showing those.
pub fn gone_for_good(devices: &[Device], ledger: &Ledger, network: &Network) -> BTreeSet<String> {
    let mut gone: BTreeSet<[u8; 32]> = ledger.all_gone().collect();
    // Moved to where it is ignored, it is as well as moved out: there it is, for whoever did so, and nobody speaks for it.
    for device in devices {
        let listing = device.listing().into_iter();
        let ignored = listing.filter(|(path, content)| is_ignored(path, content.is_none()));
        let contents = ignored.filter_map(|(_, content)| Some(content?.1));
        gone.extend(contents.map(|bytes| content_hash(&bytes)));
        // So is what came into a folder that somebody moved out in that moment.
        let outside = device.disk.image().contents_outside().into_iter();
        gone.extend(outside.map(|bytes| content_hash(&bytes)));
    }
    // Nothing has to be brought for a file without bytes, so it is never gone: not by an ignored draft either, whose
    // bytes went with the power.
    gone.remove(&content_hash(&[]));
    let listing = devices[0].vault.inner.listing().into_iter();
    listing
        .filter(|(_, hash)| {
            hash.is_some_and(|hash| {
                gone.contains(&hash)
                    && (0..devices.len()).all(|device| network.held_by(device, &hash).is_none())
            })
        })
        .map(|(path, _)| path)
        .collect()
}

/// All disks show the same, and what the vaults show.
pub fn agreement(devices: &[Device], gone: &BTreeSet<String>) {
    let shown = |device: &Device| {
        let (all, vault) = (device.listing(), device.vault.inner.listing());
        let mut listing = all.clone();
        listing.retain(|path, content| {
            // A folder that is the vault's no longer stays for ignored files in it.
            let is_left =
                content.is_none() && !vault.contains_key(path) && has_only_ignored(&all, path);
            !gone.contains(path) && !is_ignored(path, content.is_none()) && !is_left
        });
        listing
    };
    let first = shown(&devices[0]);
    for device in devices {
        let own = shown(device);
        assert!(
            own == first,
            "device {} shows {}\nbut device 0 {}",
            device.index,
            words(&own),
            words(&first)
        );
        let mut vault = device.vault.inner.listing();
        vault.retain(|path, hash| !gone.contains(path) && !is_ignored(path, hash.is_none()));
        let disk: BTreeMap<String, Option<[u8; 32]>> = own
            .iter()
            .map(|(path, content)| {
                let hash = content
                    .as_ref()
                    .map(|(_, bytes)| match bytes.strip_prefix(b"-> ") {
                        Some(target) => crate::folder::decide::link_hash(
                            std::str::from_utf8(target).unwrap_or_default(),
                        ),
                        None => content_hash(bytes),
                    });
                (path.clone(), hash)
            })
            .collect();
        assert!(
            disk == vault,
            "device {}: the disk shows {}\nbut the vault {:?}",
            device.index,
            words(&own),
            vault.keys().collect::<Vec<_>>()
        );
    }
}

/// All vaults say the same of the times of all files, and the disks show those as exactly as they keep them.
pub fn same_times(devices: &[Device], gone: &BTreeSet<String>) {
    let first = devices[0].vault.inner.times();
    for device in devices {
        assert!(
            first == device.vault.inner.times(),
            "device {} has other times than device 0",
            device.index
        );
        let profile = device.profile();
        for (path, disk_ns) in device.times() {
            let Some(vault_ms) = first.get(&path) else {
                continue;
            };
            assert!(
                gone.contains(&path)
                    || is_ignored(&path, false)
                    || profile.is_same_time(*vault_ms, disk_ns),
                "device {} has {path} of {disk_ns} ns, and the vault of {vault_ms} ms",
                device.index
            );
        }
    }
}

fn words(listing: &Listing) -> String {
    let mut words = String::new();
    for (path, content) in listing {
        let content = content.as_ref().map(|(executable, bytes)| {
            let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(24)]).into_owned();
            (shown, bytes.len(), *executable)
        });
        words.push_str(&format!("\n    {path}: {content:?}"));
    }
    words
}

/// Whatever somebody wrote, and nobody deleted or overwrote where they saw it, is there.
pub fn nothing_lost(devices: &[Device], ledger: &Ledger) {
    let mut there = visible(&devices[0]);
    for device in devices {
        // An ignored file is where it was written, and nowhere else.
        let own = device.listing().into_iter();
        let ignored = own.filter(|(path, content)| is_ignored(path, content.is_none()));
        let ignored = ignored.filter_map(|(_, content)| Some(Arc::new(content?.1)));
        there.extend(ignored);
        there.extend(device.disk.image().contents_outside());
    }
    let lost: Vec<String> = ledger
        .written
        .iter()
        .filter(|bytes| !ledger.may_be_gone(bytes) && !there.contains(*bytes))
        // A copy that got, before anybody had heard of the other, the very place of what it was made from is one with it,
        // and what was given up there is an older version of both. It is that also where the vault's file came to that place
        // first, and the copy was taken for it.
        .filter(|bytes| {
            let (hash, copies) = (content_hash(bytes), ledger.wanted_copies(bytes));
            let became_one = |device: &Device| {
                let mut own = copies
                    .iter()
                    .filter(|(disk, _)| Arc::ptr_eq(disk, &device.disk));
                device.vault.inner.became_one(&hash)
                    || own.any(|(_, inode)| device.vault.inner.adopted(&hash, *inode))
            };
            copies.is_empty() || !devices.iter().any(became_one)
        })
        .map(|bytes| String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned())
        .collect();
    assert!(
        lost.is_empty(),
        "lost: {lost:?}; there is {}",
        words(&devices[0].listing())
    );
}

/// Whether a name is one of those that are ignored without anybody's saying so.
fn is_ignored(path: &str, is_folder: bool) -> bool {
    Rules::default().is_ignored(path.as_ref(), is_folder)
}

fn visible(device: &Device) -> BTreeSet<Arc<Vec<u8>>> {
    let listing = device.listing().into_values().flatten();
    listing.map(|(_, bytes)| Arc::new(bytes)).collect()
}

/// What the vaults say is on a device's disk can be read there.
pub fn said_truly(devices: &[Device], network: &Network, gone: &BTreeSet<String>) {
    for device in devices {
        for (path, content) in device.listing() {
            let Some((_, bytes)) = content else { continue };
            if bytes.is_empty() || bytes.starts_with(b"-> ") {
                continue;
            }
            // Older bytes that stay because no newer ones can come are accounted for by their file's history.
            if gone.contains(&path) || is_ignored(&path, false) {
                continue;
            }
            assert!(
                network
                    .on_disk(device.index, &content_hash(&bytes))
                    .is_some(),
                "device {} does not know where the bytes of {path} are",
                device.index
            );
        }
    }
}

/// Nobody did anything at the same time as somebody else, so there is no conflict copy. A folder that stays on one device
/// for ignored files in it, and has to make way for what has its name by now, is none: such names are noted in
/// `made_way`, as people may give them on.
pub fn no_conflicts(devices: &[Device], made_way: &mut BTreeSet<String>) {
    let listings: Vec<Listing> = devices.iter().map(Device::listing).collect();
    let last = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
    let copies = listings[0].iter().filter(|(path, content)| {
        let name = last(path);
        if content.is_none()
            && listings
                .iter()
                .any(|listing| has_only_ignored(listing, path))
        {
            made_way.insert(name.clone());
        }
        name.contains("(conflict from") && !made_way.iter().any(|known| name.contains(known))
    });
    let copies: Vec<&String> = copies.map(|(path, _)| path).collect();
    assert!(
        copies.is_empty(),
        "conflict copies without a conflict: {copies:?}"
    );
}

/// Whether there is something in a folder, and all of it is ignored.
fn has_only_ignored(listing: &Listing, folder: &str) -> bool {
    let inside = format!("{folder}/");
    let mut below = listing
        .range(inside.clone()..)
        .take_while(|(path, _)| path.starts_with(&inside))
        .peekable();
    below.peek().is_some()
        && below.all(|(path, content)| {
            is_ignored(path, content.is_none())
                || (content.is_none() && has_only_ignored(listing, path))
        })
}

/// The power of a device fails. What its rows say to be on disk, and was, must still be somewhere on it: the vault has
/// said so to others. What nobody had seen to yet may be gone, as after any crash.
pub fn power_lost(device: &Device, ledger: &Mutex<Ledger>, dice: &mut ChaCha8Rng) {
    let before = device.disk.image();
    let rows = super::super::super::rows::Rows::new(
        coffer_crdt::files::FileId::ROOT,
        device.vault.inner.rows(),
    );
    let stated: Vec<(PathBuf, Arc<Vec<u8>>)> = rows
        .iter()
        .filter(|(_, row)| row.kind == 0)
        .filter_map(|(id, row)| {
            let path = rows.path(id)?;
            let at = PathBuf::from(super::disk::PATH).join(&path);
            let bytes = device.disk.peek(&at)?;
            // A copy that somebody put in its place, with the very same bytes, is another file: nobody has spoken for
            // it yet.
            let is_it = device.disk.look(|image| {
                let inode = image.inodes.get(&row.inode)?;
                let is_there = Arc::ptr_eq(&inode.bytes, &bytes);
                Some(is_there && inode.birth_ns <= row.ctime_ns)
            });
            // So is one that is just being written, with the beginning that the file had whose inode it got, where the
            // clock was put back: the two cannot be told apart.
            let is_begun = ledger.lock().unwrap().is_begun(&device.disk, row.inode);
            (is_it == Some(true) && !is_begun && content_hash(&bytes) == row.hash)
                .then_some((path, bytes))
        })
        .collect();
    device.disk.crash(dice);
    let after = device.disk.image().contents();
    for (path, bytes) in stated {
        assert!(
            after.contains(&bytes),
            "device {} had said to hold {}, and lost it with the power",
            device.index,
            path.display()
        );
    }
    let inside = device.disk.image().contents_inside();
    let mut ledger = ledger.lock().unwrap();
    ledger.lost_copies(&device.disk);
    for bytes in before.contents_inside() {
        if !inside.contains(&bytes) {
            ledger.excused.insert(bytes);
        }
    }
}
