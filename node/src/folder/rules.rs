//! What of a synced folder is not looked at: `.cofferignore` files, and rules for other programs' temporary files.
//!
//! The syntax is that of `.gitignore`, read by the `ignore` crate. A file's rules hold for the folder that it lies in
//! and all below; the nearest file that says something of a path decides, within a file its last line that does; after
//! all files come the [`DEFAULTS`], which a `!pattern` therefore brings back. What is in an ignored folder is ignored.
//! An ignore file itself never is: it syncs like any other file, and so do its rules.
//!
//! Rules say what of the *disk* goes into the vault, and nothing else. What is in the vault comes to disk as ever, and
//! what was in the vault before a rule spoke of it stays there ([`super::leave`]).

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use coffer_crdt::files::Kind;
use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::disk::Dir;
use super::ground::{Ground, Stat};

/// Name of a file of rules.
pub const FILE_NAME: &str = ".cofferignore";

/// Bytes read of an ignore file, at most; what is behind them does not apply.
pub const MAX_BYTES: usize = 256 << 10;
/// Patterns of one ignore file, at most: each costs memory and time for every name that is looked at.
pub const MAX_PATTERNS: usize = 5000;
/// Length of a pattern in bytes, at most; a path has no more than four thousand.
const MAX_PATTERN_BYTES: usize = 4096;
/// Ignore files that apply in one synced folder, at most.
pub const MAX_FILES: usize = 2000;
/// Problems told of one ignore file, at most.
const MAX_FILE_PROBLEMS: usize = 20;

/// What other programs put beside people's files for a while, or for themselves alone, in the letters' case of any
/// system. Left out on purpose: `*~`, which some keep as their backups, and vim's `4913`, which lives for a moment only
/// and which a person may call a file.
pub const DEFAULTS: &[&str] = &[
    // What systems keep in people's folders.
    ".DS_Store",
    ".AppleDouble",
    ".Spotlight-V100",
    ".TemporaryItems",
    ".Trashes",
    ".fseventsd",
    ".DocumentRevisions-V100",
    "Thumbs.db",
    "Thumbs.db:encryptable",
    "ehthumbs.db",
    "desktop.ini",
    "$RECYCLE.BIN",
    "System Volume Information",
    ".Trash-*",
    ".fuse_hidden*",
    ".nfs[0-9a-f]*",
    // What office programs and editors keep while a file is open.
    "~$*",
    ".~lock.*#",
    ".*.sw[nopx]",
    ".*.kate-swp",
    ".#*",
    "\\#*#",
    // What is being written or downloaded.
    "*.tmp",
    "*.part",
    "*.partial",
    "*.crdownload",
    ".goutputstream-*",
];

static DEFAULT_RULES: LazyLock<Gitignore> = LazyLock::new(|| {
    let mut builder = GitignoreBuilder::new("");
    let _ = builder.case_insensitive(true);
    for pattern in DEFAULTS {
        let added = builder.add_line(None, pattern);
        debug_assert!(added.is_ok(), "{pattern}");
    }
    builder.build().unwrap_or_else(|_| Gitignore::empty())
});

/// Which rule speaks of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The ignore file, by path within the synced folder; `None` for one of the [`DEFAULTS`].
    pub file: Option<PathBuf>,
    /// Its line there, from 1; 0 for a default.
    pub line: usize,
    /// The pattern as it is written.
    pub pattern: String,
    /// The path that it matches: the one asked about, or a folder above it.
    pub path: PathBuf,
}

/// What the rules say of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No rule speaks of it: it syncs.
    Unnamed,
    /// It is ignored.
    Ignored(Rule),
    /// A `!pattern` brings it back: it syncs.
    BroughtBack(Rule),
}

/// One ignore file, read.
#[derive(Debug)]
pub struct RuleFile {
    /// What the file system said of it when it was read.
    stat: Option<Stat>,
    matcher: Gitignore,
    lines: BTreeMap<String, usize>,
    /// Lines that do not apply (from 1; 0 for the file as a whole), and why.
    pub problems: Vec<(usize, String)>,
}

impl RuleFile {
    /// Reads rules. Whatever is wrong with some lines, the others apply.
    pub fn parse(bytes: &[u8]) -> RuleFile {
        let mut file = RuleFile {
            stat: None,
            matcher: Gitignore::empty(),
            lines: BTreeMap::new(),
            problems: Vec::new(),
        };
        let whole = bytes.len() <= MAX_BYTES;
        let mut lines: Vec<&[u8]> = bytes[..bytes.len().min(MAX_BYTES)]
            .strip_prefix(b"\xef\xbb\xbf")
            .unwrap_or(&bytes[..bytes.len().min(MAX_BYTES)])
            .split(|byte| *byte == b'\n')
            .collect();
        if !whole {
            // The last line may be cut in two, and half a pattern says something else.
            lines.pop();
            file.problem(
                0,
                format!("only the first {} KiB of it apply", MAX_BYTES >> 10),
            );
        }
        let mut patterns: Vec<(usize, &str)> = Vec::new();
        for (at, line) in lines.into_iter().enumerate() {
            let number = at + 1;
            match std::str::from_utf8(line) {
                Err(_) => file.problem(number, "it is not valid text (UTF-8)".into()),
                Ok(line) if line.len() > MAX_PATTERN_BYTES => {
                    file.problem(number, "the pattern is too long".into())
                }
                Ok(line) if line.trim().is_empty() || line.starts_with('#') => {}
                Ok(_) if patterns.len() == MAX_PATTERNS => {
                    file.problem(
                        number,
                        format!("at most {MAX_PATTERNS} patterns apply; those from here on do not"),
                    );
                    break;
                }
                Ok(line) => patterns.push((number, line)),
            }
        }
        file.compile(&patterns);
        file
    }

    fn compile(&mut self, patterns: &[(usize, &str)]) {
        let mut good = Vec::with_capacity(patterns.len());
        let mut all = builder();
        for (number, line) in patterns {
            match all.add_line(None, line) {
                Ok(_) => good.push((*number, *line)),
                Err(error) => self.problem(*number, reason(&error)),
            }
        }
        self.matcher = match all.build() {
            Ok(matcher) => matcher,
            // One of them is too much for the matcher: each by itself tells which.
            Err(_) => {
                let mut rest = builder();
                good.retain(|(number, line)| {
                    let mut one = builder();
                    let built = one.add_line(None, line).map(|one| one.build());
                    match built {
                        Ok(Ok(_)) => rest.add_line(None, line).is_ok(),
                        _ => {
                            self.problem(*number, "the pattern is too complex".into());
                            false
                        }
                    }
                });
                rest.build().unwrap_or_else(|_| {
                    self.problem(0, "its patterns are too complex; none applies".into());
                    good.clear();
                    Gitignore::empty()
                })
            }
        };
        // The last of several equal lines is the one that decides.
        self.lines = good
            .into_iter()
            .map(|(number, line)| (written(line).to_owned(), number))
            .collect();
    }

    fn problem(&mut self, line: usize, reason: String) {
        if self.problems.len() < MAX_FILE_PROBLEMS {
            self.problems.push((line, reason));
        }
    }
}

fn builder() -> GitignoreBuilder {
    let mut builder = GitignoreBuilder::new("");
    // A bracket that is never closed is a mistake to be told of, not a name.
    builder.allow_unclosed_class(false);
    builder
}

/// A pattern as the matcher remembers it.
fn written(line: &str) -> &str {
    if line.ends_with("\\ ") {
        line
    } else {
        line.trim_end()
    }
}

fn reason(error: &ignore::Error) -> String {
    let error = match error {
        ignore::Error::Glob { err, .. } => err.clone(),
        error => error.to_string(),
    };
    format!("the pattern cannot be read: {error}")
}

/// All rules of a synced folder. Cheap to copy.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// By folder, as a path within the synced one.
    files: BTreeMap<PathBuf, Arc<RuleFile>>,
}

impl PartialEq for Rules {
    /// Whether they are the same readings of the same files.
    fn eq(&self, other: &Rules) -> bool {
        self.files.len() == other.files.len()
            && self
                .files
                .iter()
                .zip(&other.files)
                .all(|(one, other)| one.0 == other.0 && Arc::ptr_eq(one.1, other.1))
    }
}

impl Rules {
    /// The rules of the file in `folder`, if there are any.
    pub fn of(&self, folder: &Path) -> Option<&Arc<RuleFile>> {
        self.files.get(folder)
    }

    /// Sets or removes those of the file in `folder`. `false` if there are too many already.
    pub fn set(&mut self, folder: &Path, file: Option<Arc<RuleFile>>) -> bool {
        match file {
            Some(file) if self.files.len() < MAX_FILES || self.files.contains_key(folder) => {
                self.files.insert(folder.to_path_buf(), file);
                true
            }
            Some(_) => false,
            None => {
                self.files.remove(folder);
                true
            }
        }
    }

    /// Whether a path within the synced folder is ignored, by its own name or as part of an ignored folder.
    pub fn is_ignored(&self, path: &Path, is_folder: bool) -> bool {
        matches!(self.verdict(path, is_folder), Verdict::Ignored(_))
    }

    /// The same for what lies in a folder that is not ignored.
    pub fn is_ignored_itself(&self, path: &Path, is_folder: bool) -> bool {
        matches!(self.own(path, is_folder), Found::Ignored(..))
    }

    /// What the rules say of a path within the synced folder.
    pub fn verdict(&self, path: &Path, is_folder: bool) -> Verdict {
        let mut at = PathBuf::new();
        let mut names = path.components().peekable();
        while let Some(name) = names.next() {
            at.push(name);
            let is_last = names.peek().is_none();
            match self.own(&at, is_folder || !is_last) {
                Found::Ignored(folder, pattern) => {
                    return Verdict::Ignored(self.rule(folder, pattern, &at));
                }
                Found::BroughtBack(folder, pattern) if is_last => {
                    return Verdict::BroughtBack(self.rule(folder, pattern, &at));
                }
                _ => {}
            }
        }
        Verdict::Unnamed
    }

    fn rule(&self, folder: Option<&Path>, pattern: &str, path: &Path) -> Rule {
        let line = folder
            .and_then(|folder| self.files.get(folder)?.lines.get(pattern))
            .copied();
        Rule {
            file: folder.map(|folder| folder.join(FILE_NAME)),
            line: line.unwrap_or(0),
            pattern: pattern.to_owned(),
            path: path.to_path_buf(),
        }
    }

    fn own<'a>(&'a self, path: &'a Path, is_folder: bool) -> Found<'a> {
        let Some(name) = path.file_name() else {
            return Found::Nothing;
        };
        if name == FILE_NAME && !is_folder {
            return Found::Nothing;
        }
        if !self.files.is_empty() {
            for folder in path.ancestors().skip(1) {
                let Some(file) = self.files.get(folder) else {
                    continue;
                };
                let Ok(below) = path.strip_prefix(folder) else {
                    continue;
                };
                match file.matcher.matched(below, is_folder) {
                    Match::None => {}
                    Match::Ignore(glob) => return Found::Ignored(Some(folder), glob.original()),
                    Match::Whitelist(glob) => {
                        return Found::BroughtBack(Some(folder), glob.original());
                    }
                }
            }
        }
        match DEFAULT_RULES.matched(Path::new(name), is_folder) {
            Match::Ignore(glob) => Found::Ignored(None, glob.original()),
            _ => Found::Nothing,
        }
    }
}

enum Found<'a> {
    Nothing,
    Ignored(Option<&'a Path>, &'a str),
    BroughtBack(Option<&'a Path>, &'a str),
}

/// Reads the ignore file in an open folder again, unless it is as it was when `known` was read.
///
/// # Errors
/// What the system says; `NotFound` where there is none.
pub fn load(folder: &Dir, stat: Stat, known: Option<&Arc<RuleFile>>) -> io::Result<Arc<RuleFile>> {
    if let Some(known) = known
        && known.stat == Some(stat)
    {
        return Ok(known.clone());
    }
    // What was read may be newer than what `stat` says; then the next look reads it again.
    let bytes = folder.read(FILE_NAME, MAX_BYTES + 1)?;
    let mut read = RuleFile::parse(&bytes);
    read.stat = Some(stat);
    Ok(Arc::new(read))
}

/// The rules on the way from a folder to a path within it, as they are on disk now.
///
/// # Errors
/// When the folder cannot be read; what cannot be read below it has no rules.
pub fn on_the_way(root: &Path, path: &Path) -> io::Result<Rules> {
    let ground = Ground::open(root)?;
    let mut rules = Rules::default();
    let mut folders: Vec<&Path> = path.ancestors().skip(1).collect();
    folders.reverse();
    for folder in folders {
        let Ok(open) = ground.folder(folder) else {
            break;
        };
        let file = open
            .stat_at(FILE_NAME)
            .ok()
            .filter(|stat| stat.kind == Some(Kind::File))
            .and_then(|stat| load(&open, stat, None).ok());
        rules.set(folder, file);
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rules(files: &[(&str, &str)]) -> Rules {
        let mut rules = Rules::default();
        for (folder, text) in files {
            rules.set(
                Path::new(folder),
                Some(Arc::new(RuleFile::parse(text.as_bytes()))),
            );
        }
        rules
    }

    fn ignored(rules: &Rules, path: &str) -> bool {
        rules.is_ignored(Path::new(path.trim_end_matches('/')), path.ends_with('/'))
    }

    #[test]
    fn temporary_files_of_programs_are_ignored_and_peoples_are_not() {
        let rules = Rules::default();
        for name in [
            ".DS_Store",
            "thumbs.db",
            "Desktop.ini",
            "~$letter.docx",
            ".~lock.letter.odt#",
            ".letter.txt.swp",
            ".letter.txt.swx",
            ".#letter",
            "#letter#",
            "x.tmp",
            "film.mkv.part",
            "x.crdownload",
            ".goutputstream-ABC",
            ".nfs000000012",
            ".Trash-1000/",
            ".fuse_hidden0001",
        ] {
            assert!(ignored(&rules, name), "{name}");
            assert!(ignored(&rules, &format!("a/b/{name}")), "{name}");
        }
        for name in [
            "letter~",
            "4913",
            "template",
            "part",
            "a.swp.txt",
            "x.swp",
            "#1 hit.mp3",
            ".cofferignore",
            "temp/",
        ] {
            assert!(!ignored(&rules, name), "{name}");
        }
    }

    #[test]
    fn the_nearest_file_and_its_last_line_decide() {
        let rules = rules(&[
            ("", "*.log\n/build/\n!keep.tmp\n"),
            ("a", "!*.log\nsecret\n"),
            ("a/b", "*.log\n!b.log\n"),
        ]);
        assert!(ignored(&rules, "x.log"));
        assert!(!ignored(&rules, "a/x.log"));
        assert!(ignored(&rules, "a/b/x.log"));
        assert!(!ignored(&rules, "a/b/b.log"));
        assert!(ignored(&rules, "a/c/secret") && !ignored(&rules, "secret"));
        assert!(ignored(&rules, "build/") && ignored(&rules, "build/deep/file"));
        assert!(!ignored(&rules, "build") && !ignored(&rules, "a/build/"));
        assert!(!ignored(&rules, "keep.tmp") && ignored(&rules, "other.tmp"));
        let verdict = rules.verdict(Path::new("build/x"), false);
        assert_eq!(
            verdict,
            Verdict::Ignored(Rule {
                file: Some(".cofferignore".into()),
                line: 2,
                pattern: "/build/".into(),
                path: "build".into()
            })
        );
        assert!(matches!(
            rules.verdict(Path::new("keep.tmp"), false),
            Verdict::BroughtBack(Rule { line: 3, .. })
        ));
        assert!(matches!(
            rules.verdict(Path::new("x.part"), false),
            Verdict::Ignored(Rule { file: None, .. })
        ));
    }

    #[test]
    fn an_ignore_file_is_never_ignored_but_in_an_ignored_folder() {
        let rules = rules(&[("", ".*\n*\n"), ("a", "")]);
        assert!(!ignored(&rules, ".cofferignore"));
        assert!(ignored(&rules, "a/.cofferignore"));
    }

    #[test]
    fn what_is_wrong_is_told_by_line_and_the_rest_applies() {
        let file =
            RuleFile::parse(b"\xef\xbb\xbf*.log\n[z-a]\n# fine\n\n\xff\xfe\n[open\n*.bak\r\n");
        let lines: Vec<usize> = file.problems.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [5, 2, 6]);
        let mut rules = Rules::default();
        rules.set(Path::new(""), Some(Arc::new(file)));
        assert!(ignored(&rules, "x.log") && ignored(&rules, "x.bak"));
    }

    #[test]
    fn too_much_is_cut_off_and_said() {
        let many = "a\n".repeat(MAX_PATTERNS) + "b\nc\n";
        let file = RuleFile::parse(many.as_bytes());
        assert_eq!(file.problems.len(), 1);
        assert_eq!(file.problems[0].0, MAX_PATTERNS + 1);
        let large = "#".repeat(MAX_BYTES - 3) + "\n*.log";
        let file = RuleFile::parse(large.as_bytes());
        assert_eq!(file.problems[0].0, 0);
        let mut rules = Rules::default();
        rules.set(Path::new(""), Some(Arc::new(file)));
        assert!(!ignored(&rules, "x.l"), "half a line does not apply");
    }

    proptest! {
        #[test]
        fn any_bytes_are_rules_of_some_kind(bytes in proptest::collection::vec(any::<u8>(), 0..300), path in "[a-z.#~*/ ]{0,30}") {
            let mut rules = Rules::default();
            rules.set(Path::new(""), Some(Arc::new(RuleFile::parse(&bytes))));
            let _ = rules.verdict(Path::new(path.trim_matches('/')), false);
        }

        #[test]
        fn any_text_is_rules_of_some_kind(text in "[\\[\\]{}*?!a-c/\\\\\n -]{0,120}", path in "[a-c/]{1,20}") {
            let mut rules = Rules::default();
            rules.set(Path::new("a"), Some(Arc::new(RuleFile::parse(text.as_bytes()))));
            let _ = rules.verdict(Path::new(path.trim_matches('/')), true);
        }
    }
}
