//! A page as it comes out of a printer: Chromium without a window prints it to a PDF, poppler's `pdftoppm` makes a picture of
//! the paper (Debian packages `chromium`, `poppler-utils`).

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Names under which distributions install it.
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
/// Dots an inch of a cheap scanner.
const DPI: &str = "150";

/// Prints `page` and gives a picture of its first sheet, beside what else is made of it in `folder`.
pub fn print(page: &Path, folder: &Path) -> PathBuf {
    std::fs::create_dir_all(folder).unwrap();
    let pdf = folder.join("page.pdf");
    let mut browser = Command::new(installed(&BROWSERS, "chromium"));
    // In CI tests run as root, and there its own sandbox does not start. The page is ours, without scripts.
    browser.args(["--headless", "--no-sandbox", "--disable-gpu"]);
    browser.args(["--disable-dev-shm-usage", "--no-first-run"]);
    browser.arg(format!(
        "--user-data-dir={}",
        folder.join("browser").display()
    ));
    browser.args([
        "--no-pdf-header-footer".to_owned(),
        format!("--print-to-pdf={}", pdf.display()),
    ]);
    run(browser.arg(format!("file://{}", page.display())), folder);
    let picture = folder.join("sheet");
    let mut scanner = Command::new(installed(&["pdftoppm"], "poppler-utils"));
    scanner.args(["-png", "-singlefile", "-f", "1", "-r", DPI]);
    run(scanner.arg(&pdf).arg(&picture), folder);
    picture.with_extension("png")
}

/// The first of these programs that there is.
#[track_caller]
fn installed(names: &[&'static str], package: &str) -> &'static str {
    let is_there = |name: &&&str| {
        let mut probe = Command::new(name);
        probe.arg("--version").stdin(Stdio::null());
        probe.stdout(Stdio::null()).stderr(Stdio::null());
        probe.status().is_ok()
    };
    match names.iter().find(is_there) {
        Some(name) => name,
        None => panic!(
            "this test prints the recovery kit and needs {}: install Debian's package {package}",
            names.join(" or ")
        ),
    }
}

#[track_caller]
fn run(command: &mut Command, home: &Path) {
    // Nothing of whoever runs the tests is read or written.
    command.env("HOME", home).stdin(Stdio::null());
    let output = command.output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}
