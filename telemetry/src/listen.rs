//! The socket that health and metrics are served on.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// Connections that may wait to be taken. A kubelet and a few collectors make one at a time each.
const BACKLOG: i32 = 128;

/// Listens on an address. `[::]` is heard in both families, whatever the machine's default is, because a kubelet asks a pod by its first
/// address, of whichever family that is; where the machine has no IPv6, it is `0.0.0.0`.
///
/// # Errors
/// When the address is not one of this machine, or its port is taken. Must be called in a tokio runtime.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    listen_with(address, bind)
}

fn listen_with(address: SocketAddr, bind: impl Fn(SocketAddr) -> io::Result<Socket>) -> io::Result<TcpListener> {
    let any = address.is_ipv6() && address.ip().is_unspecified();
    let socket = match bind(address) {
        Err(error) if any && is_without_ipv6(&error) => bind((Ipv4Addr::UNSPECIFIED, address.port()).into())?,
        socket => socket?,
    };
    TcpListener::from_std(socket.into())
}

fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // net.ipv6.bindv6only may say otherwise.
        socket.set_only_v6(false)?;
    }
    // A process that is started again does not wait for the connections of the one before.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Whether there is no IPv6 on this machine: not in its kernel (EAFNOSUPPORT), or on no interface (EADDRNOTAVAIL).
fn is_without_ipv6(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(nix::libc::EAFNOSUPPORT)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv6Addr};

    use tokio::net::TcpStream;

    use super::*;

    const ANY: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);
    const LOOPBACKS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

    #[tokio::test]
    async fn every_address_of_both_families_is_answered_on() {
        let listener = listen(ANY).unwrap();
        let port = listener.local_addr().unwrap().port();
        for address in LOOPBACKS {
            TcpStream::connect((address, port)).await.unwrap_or_else(|error| panic!("{address}: {error}"));
        }
    }

    #[tokio::test]
    async fn an_address_that_is_named_is_the_only_one() {
        let listener = listen((LOOPBACKS[0], 0).into()).unwrap();
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect((LOOPBACKS[0], port)).await.unwrap();
        assert!(TcpStream::connect((Ipv4Addr::new(127, 0, 0, 2), port)).await.is_err());
    }

    #[tokio::test]
    async fn a_machine_without_ipv6_is_answered_on_by_the_other_family() {
        for code in [nix::libc::EAFNOSUPPORT, nix::libc::EADDRNOTAVAIL] {
            let without = |address: SocketAddr| match address {
                SocketAddr::V4(_) => bind(address),
                SocketAddr::V6(_) => Err(io::Error::from_raw_os_error(code)),
            };
            let listener = listen_with(ANY, without).unwrap();
            TcpStream::connect((LOOPBACKS[0], listener.local_addr().unwrap().port())).await.unwrap();
            // Who names an address of IPv6 wants that one.
            assert!(listen_with((LOOPBACKS[1], 0).into(), without).is_err());
        }
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_an_error() {
        let first = listen(ANY).unwrap();
        assert_eq!(listen(first.local_addr().unwrap()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
