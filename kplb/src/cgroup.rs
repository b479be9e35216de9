//! The control group whose sockets are led to backends: the root of version 2's hierarchy, and so every process and pod.
//!
//! The hierarchy is where the mount table says it is: at `/sys/fs/cgroup`, or at `/sys/fs/cgroup/unified` beside those of
//! version 1, or nowhere.

use std::{env, ffi::OsString, fs, os::unix::ffi::OsStringExt as _, path::PathBuf};

use anyhow::{Context as _, Result};

/// Environment variable that names another control group than the root: then only sockets of processes in it are led.
const CGROUP_VARIABLE: &str = "KPLB_CGROUP";
const MOUNT_TABLE: &str = "/proc/self/mountinfo";

/// `$KPLB_CGROUP`, else the root of the hierarchy.
///
/// # Errors
/// If the mount table cannot be read, or has no such hierarchy.
pub fn root() -> Result<PathBuf> {
    if let Some(path) = env::var_os(CGROUP_VARIABLE) {
        return Ok(path.into());
    }
    let table = fs::read_to_string(MOUNT_TABLE).with_context(|| format!("read {MOUNT_TABLE}"))?;
    find(&table).context("no control groups of version 2 are mounted; `mount -t cgroup2 none DIRECTORY` mounts them")
}

/// Where the hierarchy is mounted, as a whole if it is anywhere.
///
/// A line is `36 35 98:0 /root /mount/point options [fields] - type source options` (proc_pid_mountinfo(5)).
fn find(table: &str) -> Option<PathBuf> {
    let mounts = table.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        (after.split(' ').next()? == "cgroup2").then_some((root, point))
    });
    // What is mounted from below the root does not show all of it.
    let (_, point) = mounts.min_by_key(|(root, _)| *root != "/")?;
    Some(unescape(point))
}

/// A path of the mount table, in which a blank and the like are `\` and three octal digits.
fn unescape(field: &str) -> PathBuf {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..3).and_then(|digits| str::from_utf8(digits).ok());
        let escaped = digits.filter(|_| *first == b'\\').and_then(|digits| u8::from_str_radix(digits, 8).ok());
        path.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[3..] } else { tail };
    }
    OsString::from_vec(path).into()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn finds_the_hierarchy_wherever_it_is() {
        let unified = "24 1 0:22 / /sys rw shared:7 - sysfs sysfs rw\n\
                       30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(find(unified).as_deref(), Some(Path::new("/sys/fs/cgroup")));
        let hybrid = "31 24 0:27 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n\
                      32 31 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                      33 31 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n";
        assert_eq!(find(hybrid).as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
        let legacy = "33 31 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup2 rw,name=systemd\n";
        assert_eq!(find(legacy), None);
        assert_eq!(find("nonsense\n - cgroup2\n"), None);
    }

    #[test]
    fn the_whole_hierarchy_is_better_than_a_part() {
        let table = "1 0 0:26 /kubepods /part rw - cgroup2 cgroup2 rw\n2 0 0:26 / /the\\040whole rw - cgroup2 c rw\n";
        assert_eq!(find(table).as_deref(), Some(Path::new("/the whole")));
        let part = table.lines().next().expect("two lines");
        assert_eq!(find(part).as_deref(), Some(Path::new("/part")));
    }

    #[test]
    fn paths_are_unescaped() {
        assert_eq!(unescape("/a\\040b\\134c"), Path::new("/a b\\c"));
        assert_eq!(unescape("/a\\04"), Path::new("/a\\04"));
    }
}
