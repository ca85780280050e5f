//! Leaving file descriptors to the database and to the application around us.
//!
//! A process that has none left can't open its own files any more, so a node stops taking connections before that.
//! POSIX gives out the lowest free number; a socket with the number n therefore says that n others are in use, without
//! anything being counted. Where the system does not tell its limit in `/proc`, connections are taken until it gives no
//! more.

use entgldb_replica::limits::DESCRIPTORS_FREE_PERCENT;

/// Asks for the most descriptors that this process may have; `None` if the system does not tell.
pub(crate) type Limit = fn() -> Option<u64>;

/// The limit of this process. An application may change it while it runs.
pub(crate) fn limit_of_this_process() -> Option<u64> {
    soft_limit(&std::fs::read_to_string("/proc/self/limits").ok()?)
}

fn soft_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Whether too few are free when this is the newest.
#[cfg(unix)]
pub(crate) fn is_scarce(newest: &impl std::os::fd::AsRawFd, limit: Option<u64>) -> bool {
    let in_use = u64::try_from(newest.as_raw_fd()).unwrap_or(0);
    limit.is_some_and(|limit| {
        in_use.saturating_mul(100) >= limit.saturating_mul(100 - DESCRIPTORS_FREE_PERCENT)
    })
}

/// Whether too few are free now.
#[cfg(unix)]
pub(crate) fn are_scarce(limit: Option<u64>) -> bool {
    // That not even this one can be had says it too.
    std::fs::File::open("/dev/null").map_or(true, |newest| is_scarce(&newest, limit))
}

#[cfg(not(unix))]
pub(crate) fn is_scarce<T>(_: &T, _: Option<u64>) -> bool {
    false
}

#[cfg(not(unix))]
pub(crate) fn are_scarce(_: Option<u64>) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_read_as_the_kernel_writes_it() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max cpu time              unlimited            unlimited            seconds   \n\
                    Max open files            1024                 524288               files     \n";
        assert_eq!(soft_limit(text), Some(1024));
        assert_eq!(soft_limit("Max open files            unlimited            unlimited  files"), None);
        assert_eq!(soft_limit(""), None);
    }

    #[cfg(unix)]
    #[test]
    fn a_quarter_is_left_free() {
        use std::os::fd::AsRawFd;
        let newest = std::fs::File::open("/dev/null").unwrap();
        let in_use = u64::try_from(newest.as_raw_fd()).unwrap();
        assert!(is_scarce(&newest, Some(in_use * 4 / 3)));
        assert!(!is_scarce(&newest, Some(in_use * 4 / 3 + 2)));
        assert!(!is_scarce(&newest, None));
        assert!(!are_scarce(Some(u64::MAX / 200)));
    }
}
