//! How much memory this node may use.

use std::fs;
use std::path::{Path, PathBuf};

use firth_model::ledger::Shares;

/// A version 1 control group without a limit says a number near the largest one.
const UNLIMITED: u64 = 1 << 60;

/// Shares of what the setting says; else of the control group's limit or the machine's memory, whichever is smaller.
pub fn shares(setting: Option<u64>) -> Shares {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| machine_bytes(&text));
    let group = fs::read_to_string("/proc/self/cgroup").ok().and_then(|text| group_bytes(&text, Path::new("/sys/fs/cgroup")));
    let found = machine.into_iter().chain(group).min();
    let shares = setting.or(found).map_or_else(Shares::default, Shares::of);
    tracing::info!(
        total = shares.total,
        machine,
        group,
        tail_cache = shares.tail_cache,
        directory_cache = shares.directory_cache,
        block_cache = shares.block_cache,
        requests = shares.requests,
        responses = shares.responses,
        "shares of memory, in bytes"
    );
    shares
}

/// Source: proc(5), /proc/meminfo.
fn machine_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The smallest limit of the group and those around it. Source: cgroups(7), /proc/[pid]/cgroup.
fn group_bytes(own: &str, mount: &Path) -> Option<u64> {
    own.lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            let (root, file) = match controllers {
                "" => (mount.to_owned(), "memory.max"),
                names if names.split(',').any(|name| name == "memory") => (mount.join("memory"), "memory.limit_in_bytes"),
                _ => return None,
            };
            limit_upwards(&root, path, file)
        })
        .min()
}

/// Inside a container the path may be one of the host's: then the mount itself holds the limit.
fn limit_upwards(root: &Path, path: &str, file: &str) -> Option<u64> {
    let inner = root.join(path.trim_start_matches('/'));
    let folders: Vec<PathBuf> = inner.ancestors().take_while(|folder| folder.starts_with(root)).map(Path::to_owned).collect();
    let limits = folders.iter().filter_map(|folder| fs::read_to_string(folder.join(file)).ok()?.trim().parse::<u64>().ok());
    limits.filter(|bytes| *bytes < UNLIMITED).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_says_kibibytes() {
        assert_eq!(machine_bytes("MemTotal:       24683000 kB\nMemFree: 1 kB\n"), Some(24_683_000 * 1024));
        assert_eq!(machine_bytes("nothing"), None);
    }

    #[test]
    fn the_smallest_limit_around_the_group_counts() {
        let mount = std::env::temp_dir().join(format!("firth-memory-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = mount.join(path);
            fs::create_dir_all(path.parent().expect("a file has a folder")).expect("made");
            fs::write(path, text).expect("written");
        };
        write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        write("memory/a/memory.limit_in_bytes", "1000\n");
        write("memory/a/b/memory.limit_in_bytes", "2000\n");
        write("memory.max", "max\n");
        assert_eq!(group_bytes("4:cpu,memory:/a/b\n0::/\n", &mount), Some(1000));
        assert_eq!(group_bytes("4:memory:/elsewhere\n0::/\n", &mount), None);
        write("memory.max", "500\n");
        assert_eq!(group_bytes("0::/elsewhere/c\n", &mount), Some(500));
        fs::remove_dir_all(&mount).expect("removed");
    }
}
