//! Keeps the node small, and gives memory back to the system when it has come to rest.
//!
//! A first copy of 20,000 files needs some 100 MB for moments; glibc keeps what was freed for the threads that freed it,
//! and a node runs for months. So there are few heaps for all threads ([`bound_heaps`]), and after work, once nothing has
//! happened for a while, the free pages are given back, and those of the program's code ([`trim`]).

use std::time::Duration;

use tokio::sync::watch;

use super::stopped;

/// Quiet after work before memory is given back: longer than idle worker threads live.
const REST: Duration = Duration::from_secs(12);

/// Runs until `stop`; `activity` counts up whenever the vault does something.
pub async fn give_back(mut activity: watch::Receiver<u64>, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = stopped(&mut stop) => return,
            changed = activity.changed() => if changed.is_err() { return },
        }
        loop {
            tokio::select! {
                () = stopped(&mut stop) => return,
                changed = activity.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(REST) => break,
            }
        }
        let _ = tokio::task::spawn_blocking(trim).await;
    }
}

/// Heaps that all threads share. glibc makes up to eight for each processor, and what one thread freed no other uses:
/// with 37 MB in use after a first copy, 87 MB were resident, with two heaps 47 MB, in the same time.
const HEAPS: i32 = 2;

/// Buffers from this size on, in bytes, are mapped by themselves and go back to the system when they are freed. glibc raises
/// the bound to the largest that it has seen freed; what lies in the heaps between such buffers then keeps them there:
/// after a first copy of 20,000 files 43 MB were in use instead of 35, and the most was 134 MB instead of 90.
const OWN_MAPPING: i32 = 256 << 10;

/// To be called before any thread is started.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "glibc offers this only as a C function")]
pub fn bound_heaps() {
    // SAFETY: mallopt takes two numbers and may be called at any time.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, HEAPS);
        libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_MAPPING);
    }
}

/// To be called before any thread is started.
#[cfg(not(target_env = "gnu"))]
pub fn bound_heaps() {}

/// Gives free pages back to the system, and the pages of the program's own code: what a node at rest does not run need not
/// be resident, and what it runs comes back from the system's cache of files at the first touch. Takes milliseconds.
pub fn trim() {
    trim_heaps();
    #[cfg(target_os = "linux")]
    let_go_of_code();
}

#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "glibc offers this only as a C function")]
fn trim_heaps() {
    // SAFETY: malloc_trim takes a number, touches free memory only, and may be called from any thread at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(not(target_env = "gnu"))]
fn trim_heaps() {}

/// Tells the system that the pages of this program's code are not needed now.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "the system offers this only as a C function")]
fn let_go_of_code() {
    let Ok(program) = std::fs::read_link("/proc/self/exe") else {
        return;
    };
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else {
        return;
    };
    for pages in code_of(&maps, &program) {
        // SAFETY: these are whole pages of a private mapping that is not writable and never was (code that does not
        // depend on its position is not relocated): the system reads them again from the file, byte by byte the same.
        unsafe {
            libc::madvise(
                std::ptr::with_exposed_provenance_mut(pages.start),
                pages.len(),
                libc::MADV_DONTNEED,
            );
        }
    }
}

/// The addresses of the executable, unwritable mappings of `program`, read from what proc(5) calls `maps`: lines of
/// `start-end permissions offset device inode path`.
#[cfg(target_os = "linux")]
fn code_of(maps: &str, program: &std::path::Path) -> Vec<std::ops::Range<usize>> {
    let address = |text| usize::from_str_radix(text, 16).ok();
    let code = maps.lines().filter_map(|line| {
        let (pages, rest) = line.split_once(' ')?;
        let (permissions, rest) = rest.split_once(' ')?;
        let path = rest.splitn(4, ' ').nth(3)?.trim_start();
        let (start, end) = pages.split_once('-')?;
        let is_code = permissions == "r-xp" && std::path::Path::new(path) == program;
        is_code.then_some(address(start)?..address(end)?)
    });
    code.filter(|pages| !pages.is_empty()).collect()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn only_the_code_of_the_program_itself_is_let_go_of() {
        let maps = "\
1000-2000 r-xp 0084b000 fe:00 5308441                    /opt/my coffer
560717f55000-5607187a1000 r--p 00000000 fe:00 5308441                    /opt/my coffer
5607187a1000-56071addf000 r-xp 0084b000 fe:00 5308441                    /opt/my coffer
56071addf000-56071ae9e000 rw-p 02e88000 fe:00 5308441                    /opt/my coffer
560755264000-560755542000 rw-p 00000000 00:00 0                          [heap]
7fe9ea2b6000-7fe9ea40c000 r-xp 00026000 fe:00 326279                     /usr/lib/libc.so.6
7fe9ea482000-7fe9ea4f6000 r-xp 00010000 00:00 0
no line of it
";
        let code = code_of(maps, "/opt/my coffer".as_ref());
        assert_eq!(code, [0x1000..0x2000, 0x5607_187a_1000..0x5607_1add_f000]);
    }

    #[test]
    fn the_program_goes_on_after_its_code_was_let_go_of() {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
        let program = std::fs::read_link("/proc/self/exe").expect("a program");
        assert!(!code_of(&maps, &program).is_empty());
        trim();
        assert_eq!("after".to_uppercase(), "AFTER");
    }
}
