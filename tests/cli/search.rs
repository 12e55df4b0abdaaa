//! Looks for secrets: in every file of a folder, in the memory of a process, in whatever was printed.
//!
//! What looks for them is to be tried on a planted leak first, in every form: as it is, in hexadecimal, in base64. Compressed
//! or encrypted text it would not recognise; the latter is the point.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use aho_corasick::AhoCorasick;
use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};

/// Bytes of memory that are read at a time.
const AT_ONCE: usize = 1 << 20;
/// Forms of one mark: itself, hexadecimal in two cases, base64 in two alphabets and at three places in its groups.
pub const FORMS: usize = 1 + 2 + 2 * 3;

/// A random word, fit for names as well as for contents.
pub fn mark(what: &str) -> String {
    let mut random = [0; 12];
    let source = File::open("/dev/urandom").expect("/dev/urandom");
    source.read_exact_at(&mut random, 0).expect("random bytes");
    format!("{what}-{}", HEXLOWER.encode(&random))
}

/// All ways in which a mark may be written.
pub fn forms(mark: &[u8]) -> Vec<Vec<u8>> {
    let mut forms = vec![
        mark.to_vec(),
        HEXLOWER.encode(mark).into_bytes(),
        HEXUPPER.encode(mark).into_bytes(),
    ];
    for alphabet in [&BASE64_NOPAD, &BASE64URL_NOPAD] {
        for before in 0..3 {
            let text = alphabet.encode(&within(before, mark, 0));
            // The part that is the mark's alone, whatever stands around it.
            let end = (before + mark.len()) * 8 / 6;
            forms.push(text.as_bytes()[(before * 8).div_ceil(6)..end].to_vec());
        }
    }
    forms
}

/// A mark with bytes before and behind it that it shares its groups of base64 with.
fn within(before: usize, mark: &[u8], behind: usize) -> Vec<u8> {
    [&vec![0xa5; before], mark, &vec![0x5a; behind]].concat()
}

/// Looks for marks.
pub struct Search {
    marks: Vec<String>,
    automaton: AhoCorasick,
    longest: usize,
}

impl Search {
    /// For all forms of marks that are text.
    pub fn of(marks: &[String]) -> Search {
        let named: Vec<_> = marks
            .iter()
            .map(|mark| (mark.clone(), mark.clone().into_bytes()))
            .collect();
        Search::named(&named)
    }

    /// For all forms of marks that have a name.
    pub fn named(marks: &[(String, Vec<u8>)]) -> Search {
        let needles: Vec<Vec<u8>> = marks.iter().flat_map(|(_, mark)| forms(mark)).collect();
        Search {
            marks: marks.iter().map(|(name, _)| name.clone()).collect(),
            longest: needles.iter().map(Vec::len).max().unwrap_or(0),
            automaton: AhoCorasick::new(&needles).expect("an automaton"),
        }
    }

    /// Which forms of which marks stand in these bytes.
    pub fn look(&self, bytes: &[u8], found: &mut Found) {
        for hit in self.automaton.find_overlapping_iter(bytes) {
            found.forms.insert(hit.pattern().as_usize());
        }
        found.bytes += bytes.len() as u64;
    }

    /// The forms that were found, for people.
    pub fn told(&self, found: &Found) -> Vec<String> {
        let forms = found.forms.iter();
        forms
            .map(|form| format!("{} in form {}", self.marks[form / FORMS], form % FORMS))
            .collect()
    }

    /// Every file below a folder, and every name of one.
    pub fn disk(&self, dir: &Path) -> Found {
        let mut found = Found::default();
        let mut folders = vec![dir.to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                self.look(path.as_os_str().as_encoded_bytes(), &mut found);
                match path.symlink_metadata().expect("an entry").file_type() {
                    kind if kind.is_dir() => folders.push(path),
                    kind if kind.is_file() => {
                        self.look(&std::fs::read(&path).expect("a file"), &mut found);
                    }
                    _ => {}
                }
            }
        }
        found
    }

    /// All memory of a process that it can read itself, while it stands still. For root alone: see [`may_read_memory`].
    pub fn memory(&self, pid: u32) -> Found {
        signal(pid, "STOP");
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("its maps");
        let memory = File::open(format!("/proc/{pid}/mem")).expect("root may read any memory");
        let mut found = Found::default();
        for line in maps.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            // The kernel's own pages hold nothing of the process, and cannot be read here.
            if !words[1].starts_with('r') || words.get(5).is_some_and(|name| name.starts_with("[v"))
            {
                continue;
            }
            let (from, to) = words[0].split_once('-').expect("a range");
            let [from, to] = [from, to].map(|at| u64::from_str_radix(at, 16).expect("an address"));
            self.range(&memory, from, to, &mut found);
        }
        signal(pid, "CONT");
        found
    }

    fn range(&self, memory: &File, from: u64, to: u64, found: &mut Found) {
        let mut bytes = vec![0; AT_ONCE + self.longest];
        let mut at = from;
        while at < to {
            let len = bytes.len().min((to - at) as usize);
            // Behind the end of a mapped file there is nothing.
            let Ok(read) = memory.read_at(&mut bytes[..len], at) else {
                return;
            };
            if read == 0 {
                return;
            }
            self.look(&bytes[..read], found);
            // What stands across two parts stands in the second of them whole.
            let step = if read > self.longest && at + (read as u64) < to {
                read - self.longest
            } else {
                read
            };
            at += step as u64;
        }
    }
}

/// What a search found, and how much it looked at.
#[derive(Default)]
pub struct Found {
    pub forms: std::collections::BTreeSet<usize>,
    pub bytes: u64,
}

/// Whether this test may read the memory of coffer. Nobody but root may; whoever is not root finds it closed.
pub fn may_read_memory(pid: u32) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    let opened = File::open(format!("/proc/{pid}/mem"));
    assert_eq!(opened.is_ok(), is_root, "{opened:?}");
    is_root
}

fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill")
        .args([&format!("-{name}"), &pid.to_string()])
        .status()
        .expect("kill runs");
    assert!(sent.success());
}

#[test]
fn marks_are_found_wherever_they_stand_in_base64() {
    let mark = mark("mark");
    for (alphabet, first) in [(&BASE64_NOPAD, 3), (&BASE64URL_NOPAD, 6)] {
        for before in 0..9 {
            for behind in 0..4 {
                let text = alphabet.encode(&within(before, mark.as_bytes(), behind));
                let form = String::from_utf8(forms(mark.as_bytes())[first + before % 3].clone())
                    .expect("text");
                let form = &form;
                assert!(text.contains(form), "{before} {behind}: {form} in {text}");
                assert!(form.len() * 6 >= (mark.len() - 2) * 8, "{form}");
            }
        }
    }
}
