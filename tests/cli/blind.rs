//! A host learns nothing of what it keeps: random marks in everything that people write are nowhere on its disk, in its
//! log or in its memory.
//!
//! What looks for them is tried first on a planted leak, in every form: as it is, in hexadecimal, in base64. Compressed or
//! encrypted text it would not recognise; the latter is the point.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use aho_corasick::AhoCorasick;
use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};

use crate::device::{Device, eventually, noise, pair, write};
use crate::host::Host;

/// Bytes of memory that are read at a time.
const AT_ONCE: usize = 1 << 20;
/// Forms of one mark: itself, hexadecimal in two cases, base64 in two alphabets and at three places in its groups.
const FORMS: usize = 1 + 2 + 2 * 3;

/// A random word, fit for names as well as for contents.
fn mark(what: &str) -> String {
    let mut random = [0; 12];
    let source = File::open("/dev/urandom").expect("/dev/urandom");
    source.read_exact_at(&mut random, 0).expect("random bytes");
    format!("{what}-{}", HEXLOWER.encode(&random))
}

/// All ways in which a mark may be written.
fn forms(mark: &str) -> Vec<String> {
    let mut forms = vec![
        mark.to_owned(),
        HEXLOWER.encode(mark.as_bytes()),
        HEXUPPER.encode(mark.as_bytes()),
    ];
    for alphabet in [&BASE64_NOPAD, &BASE64URL_NOPAD] {
        for before in 0..3 {
            let text = alphabet.encode(&within(before, mark, 0));
            // The part that is the mark's alone, whatever stands around it.
            let end = (before + mark.len()) * 8 / 6;
            forms.push(text[(before * 8).div_ceil(6)..end].to_owned());
        }
    }
    forms
}

/// A mark with bytes before and behind it that it shares its groups of base64 with.
fn within(before: usize, mark: &str, behind: usize) -> Vec<u8> {
    [&vec![0xa5; before], mark.as_bytes(), &vec![0x5a; behind]].concat()
}

/// Looks for marks.
struct Search {
    marks: Vec<String>,
    automaton: AhoCorasick,
    longest: usize,
}

impl Search {
    fn of(marks: &[String]) -> Search {
        let needles: Vec<String> = marks.iter().flat_map(|mark| forms(mark)).collect();
        Search {
            marks: marks.to_vec(),
            longest: needles.iter().map(String::len).max().unwrap_or(0),
            automaton: AhoCorasick::new(&needles).expect("an automaton"),
        }
    }

    /// Which forms of which marks stand in these bytes.
    fn look(&self, bytes: &[u8], found: &mut Found) {
        for hit in self.automaton.find_overlapping_iter(bytes) {
            found.forms.insert(hit.pattern().as_usize());
        }
        found.bytes += bytes.len() as u64;
    }

    /// The forms that were found, for people.
    fn named(&self, found: &Found) -> Vec<String> {
        let forms = found.forms.iter();
        forms
            .map(|form| format!("{} in form {}", self.marks[form / FORMS], form % FORMS))
            .collect()
    }

    /// Every file below a folder, and every name of one.
    fn disk(&self, dir: &Path) -> Found {
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

    /// All memory of a process that it can read itself, while it stands still.
    fn memory(&self, pid: u32) -> Found {
        signal(pid, "STOP");
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("its maps");
        let memory = File::open(format!("/proc/{pid}/mem")).unwrap_or_else(|error| {
            panic!(
                "the memory of a child cannot be read ({error}); kernel.yama.ptrace_scope must be 0 or 1 for this test"
            )
        });
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
struct Found {
    forms: std::collections::BTreeSet<usize>,
    bytes: u64,
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
                let text = alphabet.encode(&within(before, &mark, behind));
                let form = &forms(&mark)[first + before % 3];
                assert!(text.contains(form), "{before} {behind}: {form} in {text}");
                assert!(form.len() * 6 >= (mark.len() - 2) * 8, "{form}");
            }
        }
    }
}

#[test]
fn a_host_has_nothing_of_names_contents_ids_and_types_on_its_disk_in_its_log_or_in_memory() {
    let [
        file,
        folder,
        content,
        small,
        id,
        doctype,
        value,
        tag,
        device,
        other,
    ] = [
        "file", "folder", "content", "small", "id", "type", "value", "tag", "device", "other",
    ]
    .map(mark);
    // The name of a device lives as long as the test.
    let [first, second]: [&'static str; 2] =
        [&device, &other].map(|name| &*Box::leak(name.clone().into_boxed_str()));
    let marks = [
        file.clone(),
        folder.clone(),
        content.clone(),
        small.clone(),
        id.clone(),
        doctype.clone(),
        value.clone(),
        tag.clone(),
        device.clone(),
        other.clone(),
    ];
    let search = Search::of(&marks);
    let mut host = Host::started();

    // The planted leak: each form of each mark must be found, on the disk as in the memory of this very program.
    let leak: String = marks
        .iter()
        .flat_map(|mark| forms(mark))
        .collect::<Vec<_>>()
        .join(" ");
    host.stop();
    host.start_with(&[("LEAK", &leak), ("COFFER_RELAY_LOG_LEVEL", "debug")]);
    let planted = host.data.join("store/leak");
    write(&planted, &leak);
    for (what, found) in [
        ("disk", search.disk(&host.data)),
        ("memory", search.memory(host.pid())),
    ] {
        let count = found.forms.len();
        assert_eq!(count, marks.len() * FORMS, "planted in the {what}");
    }
    std::fs::remove_file(planted).expect("the leak can be removed");
    host.stop();
    host.start_with(&[("COFFER_RELAY_LOG_LEVEL", "debug")]);

    let a = Device::founded(first);
    let b = Device::waiting(second);
    pair(&a, &b);
    let said = a.row(&["relay", "add", &host.invite("1GiB")]);
    assert_eq!(said["host"]["name"], "attic");
    let dir = a.path("shared");
    let mut long = noise(7, 200_000);
    for at in (0..long.len() - content.len()).step_by(5_000) {
        long[at..at + content.len()].copy_from_slice(content.as_bytes());
    }
    write(&dir.join(&folder).join(&file), &long);
    write(&dir.join(format!("{file}.txt")), &small);
    let to = format!("shared {folder}");
    let added = dir.to_str().expect("a path");
    a.ok(&["folder", "add", added, "--to", &to, "--yes"]);
    let document = format!("{{\"text\":\"{value}\",\"n\":1}}");
    a.ok(&["doc", "put", &doctype, &id, &document]);
    let tagged = format!("{to}/{file}.txt");
    eventually("the folder is recorded", || {
        a.status()["folders"][0]["files"] == 2
    });
    let history = a.rows(&["file", "history", &tagged]);
    let revision = history[0]["revision"].as_str().expect("a revision");
    a.ok(&["file", "tag", &tagged, revision, &tag]);
    let holds_all = |device: &Device| {
        let row = device.status()["hosts"][0].clone();
        row["holding"]["everything"] == true && row["holding"]["lacks"]["changes"] == 0
    };
    eventually("the host holds what the devices wrote", || {
        holds_all(&a) && holds_all(&b)
    });
    // Contents come back from it too.
    b.ok(&["file", "get", &tagged, "got"]);
    let vault = a.status()["vault"]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let in_memory = search.memory(host.pid());
    let on_disk = search.disk(&host.data);
    let mut in_log = Found::default();
    search.look(host.log().as_bytes(), &mut in_log);
    for (what, found) in [("memory", &in_memory), ("disk", &on_disk), ("log", &in_log)] {
        let named = search.named(found);
        assert!(named.is_empty(), "in the {what} of the host: {named:?}");
    }
    // And it was looked where something is: the vault's id, which a host must know, is in both places.
    let known = HEXLOWER.decode(vault.as_bytes()).expect("hexadecimal");
    let control = Search {
        marks: vec![vault],
        automaton: AhoCorasick::new([&known]).expect("an automaton"),
        longest: known.len(),
    };
    assert!(!control.memory(host.pid()).forms.is_empty());
    assert!(!control.disk(&host.data).forms.is_empty());
    assert!(in_memory.bytes > 8 << 20, "{} bytes", in_memory.bytes);
    assert!(on_disk.bytes > long.len() as u64, "{} bytes", on_disk.bytes);
    host.stop();
    let named = search.named(&search.disk(&host.data));
    assert!(named.is_empty(), "after its end: {named:?}");
}
