//! Commands as values: shown before they run, or printed for the user to type.

use std::{
    env,
    ffi::{OsStr, OsString},
    fmt,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{self, Child, Stdio},
};

use anyhow::{Context as _, Error, Result, ensure};

/// One command.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Command {
    program: String,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
}

impl Command {
    /// A command of words that are separated by spaces.
    pub fn new(line: &str) -> Self {
        let mut words = line.split_whitespace().map(str::to_owned);
        Self { program: words.next().unwrap_or_default(), arguments: words.collect(), variables: Vec::new() }
    }

    /// The program at this path.
    pub fn of(path: &Path) -> Self {
        Self { program: path.to_string_lossy().into_owned(), arguments: Vec::new(), variables: Vec::new() }
    }

    /// With another argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// With more arguments.
    #[must_use]
    pub fn args<T: Into<String>>(mut self, arguments: impl IntoIterator<Item = T>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// With an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    /// The same command, run by `sudo`, which resets the environment: its variables become arguments of `env`.
    #[must_use]
    pub fn by_sudo(self) -> Self {
        let mut arguments = Vec::new();
        if !self.variables.is_empty() {
            arguments.push("env".to_owned());
            arguments.extend(self.variables.into_iter().map(|(name, value)| format!("{name}={value}")));
        }
        arguments.push(self.program);
        arguments.extend(self.arguments);
        Self { program: "sudo".to_owned(), arguments, variables: Vec::new() }
    }

    /// Shows the command, runs it, and fails if it does.
    pub fn run(&self) -> Result<()> {
        eprintln!("+ {self}");
        let status = self.prepare().status().with_context(|| self.not_started())?;
        ensure!(status.success(), "`{self}` failed ({status})");
        Ok(())
    }

    /// Shows the command and becomes it: what it prints last stays last, and its exit code is ours.
    pub fn exec(&self) -> Error {
        eprintln!("+ {self}");
        Error::new(self.prepare().exec()).context(self.not_started())
    }

    /// Shows the command and starts it, with its standard output for the caller to read, and no input.
    pub fn spawn_piped(&self) -> Result<Child> {
        eprintln!("+ {self}");
        self.prepare().stdin(Stdio::null()).stdout(Stdio::piped()).spawn().with_context(|| self.not_started())
    }

    /// Runs the command, unseen; its standard output if it succeeds.
    pub fn output(&self) -> Result<String> {
        let output =
            self.prepare().stdin(Stdio::null()).stderr(Stdio::piped()).output().with_context(|| self.not_started())?;
        ensure!(
            output.status.success(),
            "`{self}` failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        String::from_utf8(output.stdout).with_context(|| format!("output of `{self}`"))
    }

    fn prepare(&self) -> process::Command {
        let mut command = process::Command::new(&self.program);
        command.args(&self.arguments).env("PATH", search_path());
        // `cargo run` tells its children its own toolchain, which would then override `+nightly`, and what
        // `.cargo/config.toml` sets for build scripts.
        for name in ["RUSTUP_TOOLCHAIN", "CARGO", "RUSTC", "RUSTDOC", "CARGO_TERM_QUIET"] {
            command.env_remove(name);
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    fn not_started(&self) -> String {
        format!("run `{self}`")
    }
}

impl fmt::Display for Command {
    /// As one would type it in a shell.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.variables {
            write!(formatter, "{name}={} ", quote(value))?;
        }
        formatter.write_str(&quote(&self.program))?;
        self.arguments.iter().try_for_each(|argument| write!(formatter, " {}", quote(argument)))
    }
}

fn quote(word: &str) -> String {
    let plain = |character: char| character.is_ascii_alphanumeric() || "-_./=+:,@%".contains(character);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Where cargo keeps what it installs.
pub fn cargo_home() -> Option<PathBuf> {
    let given = env::var_os("CARGO_HOME").map(PathBuf::from);
    given.or_else(|| env::home_dir().map(|home| home.join(".cargo")))
}

/// The directories in which commands are found.
pub fn search_path() -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    complete_path(&path, cargo_home().map(|home| home.join("bin")).as_deref())
}

/// A `PATH` with what a service manager's or a user's may lack: cargo's programs, and the system's administration.
/// One that lacks neither stays as it is, so that build scripts which watch it need not run again.
fn complete_path(path: &OsStr, cargo_bin: Option<&Path>) -> OsString {
    let mut directories: Vec<PathBuf> = env::split_paths(path).collect();
    if let Some(cargo_bin) = cargo_bin
        && !directories.iter().any(|directory| directory == cargo_bin)
    {
        directories.insert(0, cargo_bin.to_owned());
    }
    for system in ["/usr/sbin", "/usr/bin", "/sbin", "/bin"] {
        if !directories.iter().any(|directory| directory == Path::new(system)) {
            directories.push(system.into());
        }
    }
    env::join_paths(directories).unwrap_or_else(|_| path.to_owned())
}

/// Whether `program` is found among the commands, or is the path of a file.
pub fn exists(program: &str) -> bool {
    env::split_paths(&search_path()).any(|directory| directory.join(program).is_file())
}

/// The root of the workspace.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate lies in a folder of the workspace")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_what_a_shell_understands() {
        let command = Command::new("cargo nextest run").env("RUSTFLAGS", "-D warnings").args(["-E", "test(it's)"]);
        assert_eq!(command.to_string(), r"RUSTFLAGS='-D warnings' cargo nextest run -E 'test(it'\''s)'");
        assert_eq!(
            command.by_sudo().to_string(),
            r"sudo env 'RUSTFLAGS=-D warnings' cargo nextest run -E 'test(it'\''s)'"
        );
    }

    #[test]
    fn the_path_is_completed_and_otherwise_left_alone() {
        let complete = |path: &str| {
            complete_path(OsStr::new(path), Some(Path::new("/home/a/.cargo/bin"))).into_string().expect("it was UTF-8")
        };
        assert_eq!(complete("/opt/bin:/usr/bin"), "/home/a/.cargo/bin:/opt/bin:/usr/bin:/usr/sbin:/sbin:/bin");
        let whole = "/usr/sbin:/usr/bin:/sbin:/bin:/home/a/.cargo/bin";
        assert_eq!(complete(whole), whole);
    }

    #[test]
    fn a_failure_names_the_command_and_its_words() {
        let error = Command::new("sh -c").arg("echo broken >&2; exit 3").output().expect_err("it exits with 3");
        let text = error.to_string();
        assert!(text.contains("exit status: 3") && text.ends_with("broken"), "{text}");
        let error = Command::new("no-such-program-anywhere").run().expect_err("there is none");
        assert!(error.to_string().contains("no-such-program-anywhere"), "{error}");
    }
}
