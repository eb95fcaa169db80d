//! How ranks find each other: all register with rank 0, which tells each where the others listen; then every rank
//! connects to those below it. The registration stays as the connection to rank 0.

use std::collections::hash_map::RandomState;
use std::fmt::Write as _;
use std::hash::{BuildHasher, Hasher};
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::thread;
use std::time::Duration;

use super::wire::{Deadline, Trouble, Wires, read, write};

const MAGIC: &[u8; 8] = b"swpjoin1";
/// Of what is said here and in a collective.
const VERSION: u32 = 1;
const HELLO_BYTES: usize = 32;
/// Of an answer, before its text.
const ANSWER_BYTES: usize = 24;
/// Longest text of an answer: a list of addresses, one a line.
const TEXT_BYTES: usize = 1 << 20;
/// Between looks at a listening socket, and between tries to connect; std has no accept with a deadline.
const PAUSE: Duration = Duration::from_millis(5);

/// What a rank says first on a connection that it made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hello {
    version: u32,
    rank: usize,
    world: usize,
    /// Where it listens for higher ranks.
    port: u16,
    /// 0 when it registers, later the one that rank 0 gave.
    session: u64,
}

impl Hello {
    fn encode(&self) -> [u8; HELLO_BYTES] {
        let mut bytes = [0; HELLO_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&self.version.to_le_bytes());
        bytes[12..16].copy_from_slice(&(self.rank as u32).to_le_bytes());
        bytes[16..20].copy_from_slice(&(self.world as u32).to_le_bytes());
        bytes[20..22].copy_from_slice(&self.port.to_le_bytes());
        bytes[24..].copy_from_slice(&self.session.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; HELLO_BYTES]) -> Option<Self> {
        let u32_at = |at: usize| bytes[at..].first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
        bytes.starts_with(MAGIC).then_some(())?;
        Some(Self {
            version: u32_at(8)?,
            rank: u32_at(12)? as usize,
            world: u32_at(16)? as usize,
            port: u16::from_le_bytes(*bytes[20..].first_chunk()?),
            session: u64::from_le_bytes(*bytes[24..].first_chunk()?),
        })
    }
}

/// Rank, world and address of rank 0, by the variables of torch's launchers.
pub(super) fn environment(get: impl Fn(&str) -> Option<String>) -> Result<(usize, usize, String), String> {
    let text = |name: &str| {
        let way_out = "set RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, or start the ranks by torchrun --no-python";
        get(name).filter(|value| !value.is_empty()).ok_or_else(|| format!("{name} is not set; {way_out}"))
    };
    let number = |name: &str| {
        let value = text(name)?;
        value.parse::<usize>().map_err(|_| format!("{name} is `{value}`; it must be a number, 0 or more"))
    };
    let (rank, world, host, port) =
        (number("RANK")?, number("WORLD_SIZE")?, text("MASTER_ADDR")?, number("MASTER_PORT")?);
    let agent = get("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let port = u16::try_from(port.saturating_add(usize::from(agent)))
        .map_err(|_| format!("MASTER_PORT is {port}; with 1 more under torchrun it must be at most 65535"))?;
    let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host };
    Ok((rank, world, format!("{host}:{port}")))
}

/// Binds rank 0's socket, see `TcpRing::connect` for where.
pub(super) fn listen(address: &str) -> Result<TcpListener, String> {
    let (host, port) = address.rsplit_once(':').ok_or_else(|| no_address(address))?;
    let port: u16 = port.parse().map_err(|_| no_address(address))?;
    let as_it_is = host == "localhost" || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    let bound = if as_it_is {
        TcpListener::bind(address)
    } else {
        TcpListener::bind(("::", port)).or_else(|_| TcpListener::bind(("0.0.0.0", port)))
    };
    bound.map_err(|error| {
        format!("cannot listen: {error}; rank 0 must be on the host of this address, and the port must be free")
    })
}

fn no_address(address: &str) -> String {
    format!("`{address}` is no address: it must be `host:port`, as in `10.0.0.1:29500`")
}

/// Rank 0's part.
pub(super) fn host(listener: &TcpListener, world: usize, deadline: Deadline) -> Result<Wires, String> {
    let mut ranks: Vec<Option<(TcpStream, SocketAddr)>> = (0..world).map(|_| None).collect();
    let admitted = admit(listener, deadline, |arrival| {
        let Some((hello, stream)) = arrival else { return Err(missing("register", &ranks, 1, deadline)) };
        let Hello { version, rank, .. } = hello;
        if hello.session != 0 {
            return Ok(false);
        }
        let wrong = if version != VERSION {
            Some(format!("rank {rank} speaks version {version}, rank 0 version {VERSION}: run one build on all ranks"))
        } else if hello.world != world {
            Some(format!(
                "rank {rank} expects a world of {}, rank 0 one of {world}: give all ranks one WORLD_SIZE",
                hello.world
            ))
        } else if rank == 0 || rank >= world || ranks[rank].is_some() {
            Some(format!("there are two of rank {rank}: give each process a RANK of its own, 0 to {}", world - 1))
        } else {
            None
        };
        if let Some(wrong) = wrong {
            // A rank that has left does not hear it.
            let _ = answer(&stream, None, &wrong, deadline);
            return Err(wrong);
        }
        let ip = stream.peer_addr().map_err(|error| format!("rank {rank} has no address: {error}"))?.ip();
        ranks[rank] = Some((stream, SocketAddr::new(ip.to_canonical(), hello.port)));
        Ok(ranks.iter().skip(1).all(Option::is_some))
    });
    let known = || ranks.iter().enumerate().filter_map(|(rank, known)| known.as_ref().map(|known| (rank, known)));
    let outcome = admitted.and_then(|()| {
        let addresses: Vec<_> = known().map(|(_, (_, address))| *address).collect();
        one_network(&addresses)?;
        let mut list = String::new();
        for address in addresses {
            let _ = writeln!(list, "{address}");
        }
        let session = RandomState::new().build_hasher().finish() | 1;
        known().try_for_each(|(rank, (stream, _))| {
            answer(stream, Some(session), &list, deadline).map_err(|trouble| describe(rank, &trouble, deadline))
        })
    });
    if let Err(wrong) = &outcome {
        for (_, (stream, _)) in known() {
            let _ = answer(stream, None, wrong, deadline);
        }
    }
    outcome?;
    connected(0, ranks.into_iter().map(|known| known.map(|(stream, _)| stream)).collect())
}

/// What every other rank does.
pub(super) fn join(rank: usize, world: usize, address: &str, deadline: Deadline) -> Result<Wires, String> {
    let local = |error: std::io::Error| format!("cannot listen for other ranks: {error}");
    let master = reach(address, deadline)?;
    let listener = TcpListener::bind((master.local_addr().map_err(local)?.ip(), 0)).map_err(local)?;
    let port = listener.local_addr().map_err(local)?.port();
    let mut hello = Hello { version: VERSION, rank, world, port, session: 0 };
    let to_zero = |trouble: Trouble| describe(0, &trouble, deadline);
    write(&master, &hello.encode(), deadline).map_err(to_zero)?;
    let (session, list) = hear(&master, deadline)?;
    let addresses: Vec<SocketAddr> = list.lines().filter_map(|line| line.parse().ok()).collect();
    if addresses.len() + 1 != world {
        return Err(format!(
            "rank 0 named {} other ranks, of {}: run one build on all ranks",
            addresses.len(),
            world - 1
        ));
    }
    let mut streams: Vec<Option<TcpStream>> = (0..world).map(|_| None).collect();
    streams[0] = Some(master);
    hello.session = session;
    for (peer, address) in (1..rank).zip(&addresses) {
        let failed = |trouble: Trouble| describe(peer, &trouble, deadline);
        let stream = TcpStream::connect_timeout(address, deadline.left().unwrap_or(PAUSE))
            .map_err(|error| format!("cannot reach rank {peer} at {address}: {error}; is a firewall between?"))?;
        write(&stream, &hello.encode(), deadline).map_err(failed)?;
        let mut back = [0; HELLO_BYTES];
        read(&stream, &mut back, deadline).map_err(failed)?;
        if Hello::decode(&back).is_none_or(|back| (back.rank, back.session) != (peer, session)) {
            return Err(format!("what listens at {address} is not rank {peer} of this group"));
        }
        streams[peer] = Some(stream);
    }
    if rank + 1 < world {
        admit(&listener, deadline, |arrival| {
            let Some((theirs, stream)) = arrival else {
                return Err(missing("connect", &streams, rank + 1, deadline));
            };
            let fits = theirs.version == VERSION && theirs.session == session && theirs.rank > rank;
            if fits && streams.get(theirs.rank).is_some_and(Option::is_none) {
                write(&stream, &hello.encode(), deadline)
                    .map_err(|trouble| describe(theirs.rank, &trouble, deadline))?;
                streams[theirs.rank] = Some(stream);
            }
            Ok(streams.iter().skip(rank + 1).all(Option::is_some))
        })?;
    }
    connected(rank, streams)
}

/// Takes connections and gives those that say hello to `judge`, until it is content. At the deadline it gets none and
/// says what is missing. What says anything else is dropped; what says nothing waits and holds nobody up.
fn admit(
    listener: &TcpListener,
    deadline: Deadline,
    mut judge: impl FnMut(Option<(Hello, TcpStream)>) -> Result<bool, String>,
) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("cannot take connections: {error}");
    listener.set_nonblocking(true).map_err(failed)?;
    let mut waiting: Vec<(TcpStream, [u8; HELLO_BYTES], usize)> = Vec::new();
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(true).map_err(failed)?;
                waiting.push((stream, [0; HELLO_BYTES], 0));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(PAUSE),
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
            Err(error) => return Err(failed(error)),
        }
        for (mut stream, mut bytes, mut have) in std::mem::take(&mut waiting) {
            match stream.read(&mut bytes[have..]) {
                Ok(0) => continue,
                Ok(count) => have += count,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(_) => continue,
            }
            if have < HELLO_BYTES {
                waiting.push((stream, bytes, have));
            } else if let Some(hello) = Hello::decode(&bytes) {
                stream.set_nonblocking(false).map_err(failed)?;
                if judge(Some((hello, stream)))? {
                    return Ok(());
                }
            }
        }
        if deadline.left().is_none() {
            return judge(None).map(|_| ());
        }
    }
}

/// Rank 0's answer: a session and the addresses, or none and why not.
fn answer(stream: &TcpStream, session: Option<u64>, text: &str, deadline: Deadline) -> Result<(), Trouble> {
    let mut bytes = Vec::with_capacity(ANSWER_BYTES + text.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&session.unwrap_or(0).to_le_bytes());
    bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
    write(stream, &bytes, deadline)
}

/// The session and the addresses that rank 0 gives, or why it does not.
fn hear(master: &TcpStream, deadline: Deadline) -> Result<(u64, String), String> {
    let failed = |trouble: Trouble| describe(0, &trouble, deadline);
    let mut head = [0; ANSWER_BYTES];
    read(master, &mut head, deadline).map_err(failed)?;
    let u64_at = |at: usize| head[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let (session, len) = (u64_at(8), u64_at(16) as usize);
    if !head.starts_with(MAGIC) || len > TEXT_BYTES {
        return Err("what listens there is not rank 0 of such a group: give a port of its own".to_owned());
    }
    let mut text = vec![0; len];
    read(master, &mut text, deadline).map_err(failed)?;
    let text = String::from_utf8_lossy(&text).into_owned();
    if session == 0 { Err(format!("rank 0 refuses: {text}")) } else { Ok((session, text)) }
}

/// Connects to rank 0, which may not be up yet.
fn reach(address: &str, deadline: Deadline) -> Result<TcpStream, String> {
    let mut cause = "no time was allowed".to_owned();
    while let Some(left) = deadline.left() {
        match address.to_socket_addrs() {
            Err(error) if error.kind() == ErrorKind::InvalidInput => return Err(no_address(address)),
            Err(error) => cause = error.to_string(),
            Ok(found) => {
                for target in found {
                    match TcpStream::connect_timeout(&target, left) {
                        // A port of the ephemeral range that nobody listens at can be connected to itself.
                        Ok(stream) if stream.local_addr().ok() == stream.peer_addr().ok() => {}
                        Ok(stream) => return Ok(stream),
                        Err(error) => cause = error.to_string(),
                    }
                }
            }
        }
        thread::sleep(PAUSE);
    }
    Err(format!("rank 0 could not be reached within {:?} ({cause}); is it started, on this host?", deadline.allowed))
}

/// All connections are there: no waiting for more bytes before some are sent.
fn connected(rank: usize, streams: Vec<Option<TcpStream>>) -> Result<Wires, String> {
    for stream in streams.iter().flatten() {
        stream.set_nodelay(true).map_err(|error| format!("a connection was lost: {error}"))?;
    }
    Ok(Wires::new(rank, streams))
}

/// Ranks at loopback addresses cannot be reached from other hosts.
fn one_network(addresses: &[SocketAddr]) -> Result<(), String> {
    let local = addresses.iter().position(|address| address.ip().is_loopback());
    let remote = addresses.iter().position(|address| !address.ip().is_loopback());
    match (local, remote) {
        (Some(local), Some(remote)) => Err(format!(
            "rank {} came by the loopback address {} and rank {} from {}, so they cannot reach each other: give rank \
             0's address as a number that all hosts know",
            local + 1,
            addresses[local],
            remote + 1,
            addresses[remote]
        )),
        _ => Ok(()),
    }
}

/// Which ranks did not do their part by the deadline.
fn missing<T>(part: &str, ranks: &[Option<T>], from: usize, deadline: Deadline) -> String {
    let absent: Vec<String> =
        (from..ranks.len()).filter(|rank| ranks[*rank].is_none()).map(|rank| rank.to_string()).collect();
    format!(
        "no sign of rank {} within {:?}, which had to {part}: see whether it runs, with this address",
        absent.join(", "),
        deadline.allowed
    )
}

fn describe(peer: usize, trouble: &Trouble, deadline: Deadline) -> String {
    match trouble {
        Trouble::Late => format!("rank {peer} said nothing within {:?}: see whether it runs", deadline.allowed),
        Trouble::Gone(cause) => format!("rank {peer} is gone ({cause}): see what it said"),
        Trouble::System(cause) => format!("the system refused: {cause}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hellos_come_back() {
        let hello = Hello { version: 1, rank: 2, world: 3, port: 40_000, session: 1 << 60 };
        assert_eq!(Hello::decode(&hello.encode()), Some(hello));
        assert_eq!(Hello::decode(&[b'G'; HELLO_BYTES]), None);
    }

    #[test]
    fn the_environment_is_torchs() {
        let set = |change: (&'static str, &'static str)| {
            environment(move |name| {
                let usual = [("RANK", "1"), ("WORLD_SIZE", "4"), ("MASTER_ADDR", "10.0.0.1"), ("MASTER_PORT", "29500")];
                [change].iter().chain(&usual).find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
            })
        };
        assert_eq!(set(("", "")), Ok((1, 4, "10.0.0.1:29500".to_owned())));
        assert_eq!(set(("MASTER_ADDR", "::1")), Ok((1, 4, "[::1]:29500".to_owned())));
        assert_eq!(set(("TORCHELASTIC_USE_AGENT_STORE", "True")), Ok((1, 4, "10.0.0.1:29501".to_owned())));
        for (change, says) in [
            (("RANK", ""), "RANK is not set; set RANK, WORLD_SIZE"),
            (("WORLD_SIZE", "-1"), "WORLD_SIZE is `-1`; it must be a number"),
            (("MASTER_PORT", "70000"), "MASTER_PORT is 70000"),
        ] {
            let error = set(change).expect_err("wrong");
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn loopback_and_other_addresses_do_not_mix() {
        let addresses = |texts: [&str; 2]| texts.map(|text| text.parse().expect("an address"));
        assert_eq!(one_network(&addresses(["127.0.0.1:1", "127.0.0.1:2"])), Ok(()));
        let error = one_network(&addresses(["10.0.0.2:1", "127.0.0.1:2"])).expect_err("unreachable");
        assert!(
            error.contains("rank 2 came by the loopback address 127.0.0.1:2 and rank 1 from 10.0.0.2:1"),
            "{error}"
        );
    }
}
