//! Where a server listens: TCP addresses and Unix sockets, as many as there are.

use std::fmt;
use std::fs;
use std::io;
use std::net::{self, SocketAddr};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net as unix;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::task::{Context, Poll};

use listenfd::ListenFd;
use socket2::{Domain, SockAddr, Socket, Type};
use thiserror::Error;
use tokio::net::{TcpListener, UnixListener, UnixStream};

/// What stands before the path of a Unix socket.
const UNIX: &str = "unix:";

/// What stands for the sockets that were passed.
const SYSTEMD: &str = "systemd";

/// Who may connect to a Unix socket: its owner and its group. The folder that it is in may say less.
const UNIX_MODE: u32 = 0o660;

/// How many connections to a Unix socket wait to be accepted; as many as of the standard library's.
const UNIX_BACKLOG: i32 = 128;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// An IP address and a port; port 0 takes any free one.
    Tcp(SocketAddr),
    /// The path of a Unix socket. It is made with mode 0660 and removed at the end; one that nobody
    /// answers at any more is replaced.
    Unix(PathBuf),
    /// The sockets that systemd opened and passed (`LISTEN_FDS`), to be named once.
    Systemd,
}

/// A text says not where to listen.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("give IP-ADDRESS:PORT, such as 127.0.0.1:50051 or [::]:50051, or unix:PATH, or systemd")]
pub struct ListenError;

impl FromStr for Listen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        match text.strip_prefix(UNIX) {
            Some("") => Err(ListenError),
            Some(path) => Ok(Self::Unix(path.into())),
            None if text == SYSTEMD => Ok(Self::Systemd),
            None => text.parse().map(Self::Tcp).map_err(|_| ListenError),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
            Self::Systemd => f.write_str(SYSTEMD),
        }
    }
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl Listen {
    /// The address, if others than this machine's users reach it.
    pub(super) fn beyond_loopback(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) if !address.ip().to_canonical().is_loopback() => Some(*address),
            Self::Tcp(_) | Self::Unix(_) | Self::Systemd => None,
        }
    }
}

/// The open sockets of a server.
pub(super) struct Listeners {
    all: Vec<Listener>,
    /// Which is asked first, so that a busy one holds up none of the others.
    first: usize,
}

enum Listener {
    Tcp(TcpListener),
    /// With the file that it made, and removes when it is dropped.
    Unix(UnixListener, #[expect(dead_code, reason = "held for its end")] Option<File>),
}

/// A connection, off its event loop.
pub(super) enum Accepted {
    Tcp(net::TcpStream, SocketAddr),
    Unix(unix::UnixStream),
}

impl Accepted {
    /// The peer's address, if it has one.
    pub(super) fn remote(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(_, remote) => Some(*remote),
            Self::Unix(_) => None,
        }
    }
}

impl Listeners {
    /// Opens all of them, and says where each is.
    pub(super) async fn bind(
        places: &[Listen],
    ) -> Result<(Self, Vec<Listen>), (Listen, io::Error)> {
        let (mut all, mut bound) = (Vec::new(), Vec::new());
        for (index, place) in places.iter().enumerate() {
            let opened = match place {
                // The sockets have one owner.
                Listen::Systemd if places[..index].contains(place) => {
                    Err(io::Error::other("it is named twice"))
                }
                Listen::Systemd => passed(),
                Listen::Tcp(address) => {
                    TcpListener::bind(address).await.map(|it| vec![Listener::Tcp(it)])
                }
                Listen::Unix(path) => bind_unix(path, UNIX_MODE)
                    .await
                    .map(|BoundUnix { listener, file }| vec![Listener::Unix(listener, Some(file))]),
            };
            let opened = opened.map_err(|error| (place.clone(), error))?;
            for listener in opened {
                bound.push(listener.place().map_err(|error| (place.clone(), error))?);
                all.push(listener);
            }
        }
        Ok((Self { all, first: 0 }, bound))
    }

    /// The next connection of any of them.
    pub(super) async fn accept(&mut self) -> io::Result<Accepted> {
        std::future::poll_fn(|context| self.poll_accept(context)).await
    }

    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        let count = self.all.len();
        for index in (self.first..count).chain(0..self.first) {
            if let Poll::Ready(accepted) = self.all[index].poll_accept(context) {
                self.first = (index + 1) % count;
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    }
}

impl From<TcpListener> for Listeners {
    fn from(listener: TcpListener) -> Self {
        Self { all: vec![Listener::Tcp(listener)], first: 0 }
    }
}

impl Listener {
    fn place(&self) -> io::Result<Listen> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Listen::Tcp),
            Self::Unix(listener, _) => {
                let address = listener.local_addr()?;
                // One without a path is in Linux's abstract namespace.
                Ok(Listen::Unix(address.as_pathname().unwrap_or(Path::new("@")).to_owned()))
            }
        }
    }

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        match self {
            Self::Tcp(listener) => listener.poll_accept(context).map(|accepted| {
                let (stream, remote) = accepted?;
                Ok(Accepted::Tcp(stream.into_std()?, remote))
            }),
            Self::Unix(listener, _) => listener
                .poll_accept(context)
                .map(|accepted| Ok(Accepted::Unix(accepted?.0.into_std()?))),
        }
    }
}

/// The file of a Unix socket. It is removed with the value, if it is still the same one.
struct File {
    path: PathBuf,
    identity: (u64, u64),
}

impl File {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), identity: identity(path)? })
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            // Nobody is left to be told; the next start replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Which file is there: its device and its number on it.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Takes the sockets that systemd passed, which stay its own: their files too.
fn passed() -> io::Result<Vec<Listener>> {
    let mut sockets = ListenFd::from_env();
    let count = sockets.len();
    let take = |index| {
        if let Ok(Some(listener)) = sockets.take_tcp_listener(index) {
            listener.set_nonblocking(true)?;
            return TcpListener::from_std(listener).map(Listener::Tcp);
        }
        let listener = sockets.take_unix_listener(index)?.ok_or(io::ErrorKind::NotFound)?;
        listener.set_nonblocking(true)?;
        UnixListener::from_std(listener).map(|listener| Listener::Unix(listener, None))
    };
    let listeners: Vec<_> = (0..count).map(take).collect::<io::Result<_>>()?;
    if listeners.is_empty() {
        return Err(io::Error::other("no sockets were passed (LISTEN_FDS)"));
    }
    Ok(listeners)
}

/// A Unix socket with the file that it made, and removes when it is dropped.
pub(super) struct BoundUnix {
    pub(super) listener: UnixListener,
    file: File,
}

/// Opens a Unix socket whose file has this mode.
pub(super) async fn bind_unix(path: &Path, mode: u32) -> io::Result<BoundUnix> {
    remove_stale(path).await?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = File::of(path)?;
    // Until it listens nobody can connect: with no other mode was it ever open.
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    socket.listen(UNIX_BACKLOG)?;
    socket.set_nonblocking(true)?;
    let listener = unix::UnixListener::from(std::os::fd::OwnedFd::from(socket));
    Ok(BoundUnix { listener: UnixListener::from_std(listener)?, file })
}

/// Removes the socket of a server that was killed. What answers there, or is no socket, stays.
async fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {}
        Ok(_) => return Err(io::Error::other("something else than a socket is there")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    // This connects at once or not at all, so that it needs no deadline.
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        // Also when so many wait there that no more are taken.
        Ok(_) | Err(_) => {
            Err(io::Error::new(io::ErrorKind::AddrInUse, "another server answers there"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_an_address_with_a_port_or_the_path_of_a_socket() {
        for text in
            ["127.0.0.1:50051", "[::1]:0", "0.0.0.0:1", "unix:/run/a b", "unix:a", "systemd"]
        {
            let place = text.parse::<Listen>();
            assert_eq!(place.map(|it| it.to_string()).as_deref(), Ok(text));
        }
        for text in
            ["", "unix:", "unix", "127.0.0.1", "localhost:1", ":1", "::1:1x", "http://[::1]:1"]
        {
            assert_eq!(text.parse::<Listen>(), Err(ListenError), "{text}");
        }
    }

    #[test]
    fn loopback_addresses_and_unix_sockets_are_this_machines_alone() {
        let is_beyond =
            |text: &str| text.parse::<Listen>().expect("a place").beyond_loopback().is_some();
        for text in ["127.0.0.1:1", "127.1.2.3:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "unix:/a"] {
            assert!(!is_beyond(text), "{text}");
        }
        for text in
            ["0.0.0.0:1", "192.0.2.1:1", "[::]:1", "[2001:db8::1]:1", "[::ffff:192.0.2.1]:1"]
        {
            assert!(is_beyond(text), "{text}");
        }
    }

    #[tokio::test]
    async fn connections_of_all_listeners_are_taken() {
        let place: Listen = "127.0.0.1:0".parse().expect("a place");
        let bound = Listeners::bind(&[place.clone(), place]).await;
        let Ok((mut listeners, places)) = bound else { panic!("free ports") };
        let mut clients = Vec::new();
        for _ in 0..3 {
            for place in &places {
                let Listen::Tcp(address) = place else { panic!("{place}") };
                let client = tokio::net::TcpStream::connect(address).await.expect("connects");
                clients.push(client);
            }
        }
        let mut taken = Vec::new();
        while taken.len() < clients.len() {
            let remote = listeners.accept().await.expect("a connection").remote();
            taken.push(remote.expect("an address"));
        }
        let mut opened: Vec<_> =
            clients.iter().map(|it| it.local_addr().expect("an address")).collect();
        taken.sort();
        opened.sort();
        assert_eq!(taken, opened);
    }
}
