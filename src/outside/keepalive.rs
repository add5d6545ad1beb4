//! Probes on connections that are silent. Networks forget a connection on which nothing is said for ten minutes, and a server that is
//! gone for good says nothing: without probes of ours, whoever waits for its answer waits for ever. libpq has parameters for it; the
//! driver of our own sessions has none, and so the sockets of this process are looked through.

use std::time::Duration;

/// A connection is probed when nothing was said on it for so long.
pub const IDLE: Duration = Duration::from_secs(60);
/// From then on so often.
pub const INTERVAL: Duration = Duration::from_secs(10);
/// And is given up when so many probes were not answered.
pub const PROBES: u32 = 6;

/// Where a program that uses libpq is to connect to, for its `--dbname`: the database, and how the connection is probed. The rest is in
/// [`super::url::DatabaseUrl::libpq_env`].
#[must_use]
pub fn conninfo(dbname: &str) -> String {
    let dbname = dbname.replace('\\', "\\\\").replace('\'', "\\'");
    format!(
        "dbname='{dbname}' keepalives=1 keepalives_idle={} keepalives_interval={} keepalives_count={PROBES}",
        IDLE.as_secs(),
        INTERVAL.as_secs()
    )
}

/// Has the kernel probe every TCP connection of this process that is not probed yet. Where the system does not allow that, the server's
/// own probes are what there is.
pub(super) fn probe() {
    #[cfg(target_os = "linux")]
    let _ = linux::probe();
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::os::fd::OwnedFd;

    use rustix::net::{AddressFamily, SocketType, sockopt};
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

    use super::{IDLE, INTERVAL, PROBES};

    pub(super) fn probe() -> io::Result<()> {
        // A second handle of each socket: the settings belong to the connection, and whoever owns the first keeps it.
        let itself = pidfd_open(getpid(), PidfdFlags::empty())?;
        for entry in std::fs::read_dir("/proc/self/fd")?.flatten() {
            let is_socket =
                std::fs::read_link(entry.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"));
            let number = entry.file_name().to_string_lossy().parse();
            let (Ok(number), true) = (number, is_socket) else { continue };
            // One that is closed meanwhile needs nothing.
            if let Ok(socket) = pidfd_getfd(&itself, number, PidfdGetfdFlags::empty()) {
                let _ = probe_one(&socket);
            }
        }
        Ok(())
    }

    fn probe_one(socket: &OwnedFd) -> io::Result<()> {
        let internet = matches!(sockopt::socket_domain(socket)?, AddressFamily::INET | AddressFamily::INET6);
        let is_tcp = internet && sockopt::socket_type(socket)? == SocketType::STREAM;
        if !is_tcp || sockopt::socket_keepalive(socket)? {
            return Ok(());
        }
        sockopt::set_tcp_keepidle(socket, IDLE)?;
        sockopt::set_tcp_keepintvl(socket, INTERVAL)?;
        sockopt::set_tcp_keepcnt(socket, PROBES)?;
        Ok(sockopt::set_socket_keepalive(socket, true)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_as_libpq_reads_them() {
        let expected =
            "dbname='a b\\'c\\\\d' keepalives=1 keepalives_idle=60 keepalives_interval=10 keepalives_count=6";
        assert_eq!(conninfo("a b'c\\d"), expected);
    }
}
