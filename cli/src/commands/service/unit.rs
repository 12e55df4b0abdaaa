//! The systemd user unit: its text, its place, and the words to systemd.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use coffer_node::control::ControlError;

use crate::args::{Context, DATA_DIR_VARIABLE};
use crate::error::Failure;

/// Name of the unit.
pub const NAME: &str = "coffer.service";

/// Where user units are: `$XDG_CONFIG_HOME/systemd/user`, by default `~/.config/systemd/user`.
pub fn path() -> Result<PathBuf, Failure> {
    let set = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let config = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")));
    let config = config.ok_or_else(|| {
        ControlError::usage("there is no home folder to install the service in")
            .with_code("no-systemd")
    })?;
    Ok(config.join("systemd/user").join(NAME))
}

/// The unit that runs `program` as it was called: with the data folder of this command.
pub fn text(program: &Path, context: &Context) -> String {
    let environment = if context.data_dir_given {
        format!(
            "Environment={}\n",
            escaped(&format!(
                "{DATA_DIR_VARIABLE}={}",
                context.data_dir.display()
            ))
        )
    } else {
        String::new()
    };
    // Exit code 9: it runs already; 16: made by a newer version. Trying again changes neither.
    format!(
        "[Unit]\n\
         Description=coffer: documents and files on your own devices\n\
         \n\
         [Service]\n\
         {environment}\
         ExecStart={} start\n\
         Restart=on-failure\n\
         RestartSec=5\n\
         RestartPreventExitStatus=9 16\n\
         TimeoutStopSec=10\n\
         \n\
         [Install]\n\
         WantedBy=default.target\n",
        escaped(&program.display().to_string())
    )
}

/// Runs `systemctl --user` with these words; `false` where it does not work (no systemd, no session).
pub fn systemctl(words: &[&str]) -> bool {
    let quiet = Command::new("systemctl")
        .arg("--user")
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    quiet.is_ok_and(|status| status.success())
}

/// One word of a unit file, as systemd.syntax(7) and systemd.service(5) quote it.
fn escaped(word: &str) -> String {
    let word = word
        .replace('\\', r"\\")
        .replace('"', "\\\"")
        .replace('%', "%%")
        .replace('$', "$$");
    format!("\"{word}\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Output;

    #[test]
    fn the_unit_names_the_program_and_the_data_folder() {
        let mut context = Context {
            data_dir: "/mnt/my 100% disk".into(),
            data_dir_given: true,
            yes: false,
            output: Output::new(false),
        };
        let unit = text(Path::new("/usr/local/bin/coffer"), &context);
        assert!(
            unit.contains("\nEnvironment=\"COFFER_DATA_DIR=/mnt/my 100%% disk\"\n"),
            "{unit}"
        );
        assert!(
            unit.contains("\nExecStart=\"/usr/local/bin/coffer\" start\n"),
            "{unit}"
        );
        context.data_dir_given = false;
        assert!(!text(Path::new("/usr/local/bin/coffer"), &context).contains("Environment"));
    }
}
