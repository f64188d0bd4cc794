//! Another machine, as far as sandboxes can tell: a network namespace of its own at the other end of a veth pair, with
//! servers in it, and a name server on this host. Root only; what goes wrong fails the test.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Echoes what it gets, to its end.
pub const ECHO: u16 = 7000;

/// Nobody listens there.
pub const CLOSED: u16 = 7001;

/// Sends without end to whoever connects.
pub const FLOOD: u16 = 7002;

/// Takes connections, and answers how many there are on [`Outside::held`].
pub const HOLD: u16 = 7003;

/// The other machine; gone when it is dropped.
pub struct Outside {
    name: String,
    /// This host's address on the pair.
    pub host: Ipv4Addr,
    /// The other machine's.
    pub there: Ipv4Addr,
    /// Likewise.
    pub there6: Ipv6Addr,
    /// An address on the pair that nobody has.
    pub nobody: Ipv4Addr,
    /// Where the name server listens, on port 53.
    pub name_server: Ipv4Addr,
    /// What it answers.
    pub names: Arc<Mutex<HashMap<String, IpAddr>>>,
    held: Arc<Mutex<Vec<TcpStream>>>,
}

/// Runs a command; its failure fails the test.
pub fn run(command: &str) {
    let words: Vec<&str> = command.split(' ').collect();
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// False, with the reason printed, where there is no `ip` command; with `CI=true` that is a failure.
pub fn has_ip() -> bool {
    let there = Command::new("ip").arg("-V").output().is_ok();
    assert!(
        there || std::env::var("CI").as_deref() != Ok("true"),
        "install iproute2"
    );
    if !there {
        eprintln!("skipped: needs the command ip (iproute2)");
    }
    there
}

impl Default for Outside {
    fn default() -> Self {
        Self::new()
    }
}

impl Outside {
    /// With its servers.
    pub fn new() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        // One of 64 x 1024 small networks, by process and test.
        let number = u16::try_from(std::process::id() % 1024).unwrap() * 64 + NEXT.fetch_add(1, Ordering::Relaxed) % 64;
        let [high, low] = number.to_be_bytes();
        // 10.128.0.0/9 in pieces of 8 addresses would do; a piece of 172.16.0.0/12 is what fewer hosts use.
        let base = u32::from(Ipv4Addr::new(172, 24, 0, 0)) | u32::from(number) << 3;
        let at = |last: u32| Ipv4Addr::from(base | last);
        let outside = Self {
            name: format!("knarr-out-{number}"),
            host: at(1),
            there: at(2),
            there6: Ipv6Addr::new(0xfd77, number, 0, 0, 0, 0, 0, 2),
            nobody: at(5),
            name_server: Ipv4Addr::new(127, 53, high, low),
            names: Arc::default(),
            held: Arc::default(),
        };
        let Self {
            name,
            host,
            there,
            there6,
            ..
        } = &outside;
        let (near, far) = (format!("kno{number}a"), format!("kno{number}b"));
        for command in [
            format!("ip netns add {name}"),
            format!("ip link add {near} type veth peer name {far} netns {name}"),
            format!("ip address add {host}/29 dev {near}"),
            format!("ip address add fd77:{number:x}::1/64 dev {near} nodad"),
            format!("ip link set {near} up"),
            format!("ip -n {name} link set lo up"),
            format!("ip -n {name} address add {there}/29 dev {far}"),
            format!("ip -n {name} address add {there6}/64 dev {far} nodad"),
            format!("ip -n {name} link set {far} up"),
            format!("ip -n {name} route add default via {host}"),
        ] {
            run(&command);
        }
        outside.listen(ECHO, |mut stream| {
            let mut copy = stream.try_clone().unwrap();
            let _ = std::io::copy(&mut stream, &mut copy);
            let _ = copy.shutdown(std::net::Shutdown::Write);
        });
        outside.listen(FLOOD, |mut stream| while stream.write_all(&[0; 4096]).is_ok() {});
        let held = Arc::clone(&outside.held);
        outside.listen(HOLD, move |stream| held.lock().unwrap().push(stream));
        outside.answer_names();
        outside
    }

    /// Serves a port there, both families.
    pub fn listen(&self, port: u16, serve: impl Fn(TcpStream) + Clone + Send + 'static) {
        let netns = File::open(format!("/run/netns/{}", self.name)).unwrap();
        let open = move || {
            move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap()
        };
        // Only a thread of its own may stay there.
        let listener = thread::spawn(open).join().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serve = serve.clone();
                thread::spawn(move || serve(stream));
            }
        });
    }

    /// Waits until every connection that is held there has ended; how many there were.
    pub fn held_to_the_end(&self) -> usize {
        let held = std::mem::take(&mut *self.held.lock().unwrap());
        for mut stream in &held {
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest);
        }
        held.len()
    }

    /// How many connections are held there.
    pub fn held(&self) -> usize {
        self.held.lock().unwrap().len()
    }

    /// The name server answers this name with this address from now on.
    pub fn say(&self, name: &str, address: impl Into<IpAddr>) {
        self.names.lock().unwrap().insert(name.to_owned(), address.into());
    }

    /// A `resolv.conf` with this name server.
    pub fn resolv_conf(&self, dir: &std::path::Path) -> std::path::PathBuf {
        let path = dir.join("resolv.conf");
        fs::write(&path, format!("nameserver {}\n", self.name_server)).unwrap();
        path
    }

    /// By hand: a test of one DNS library against itself would prove little.
    fn answer_names(&self) {
        let socket = UdpSocket::bind(SocketAddr::from((self.name_server, 53))).unwrap();
        let names = Arc::clone(&self.names);
        thread::spawn(move || {
            let mut message = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut message) {
                let query = &message[..length];
                let (mut name, mut at) = (String::new(), 12);
                while query[at] != 0 {
                    let end = at + 1 + usize::from(query[at]);
                    name += &format!("{}.", String::from_utf8_lossy(&query[at + 1..end]));
                    at = end;
                }
                let wanted = u16::from_be_bytes([query[at + 1], query[at + 2]]);
                let found = names.lock().unwrap().get(name.trim_end_matches('.')).copied();
                let data = match found {
                    Some(IpAddr::V4(v4)) if wanted == 1 => v4.octets().to_vec(),
                    Some(IpAddr::V6(v6)) if wanted == 28 => v6.octets().to_vec(),
                    _ => Vec::new(),
                };
                let code = if found.is_some() { 0x80 } else { 0x83 };
                let mut answer = query[..2].to_vec();
                answer.extend([0x81, code, 0, 1, 0, u8::from(!data.is_empty()), 0, 0, 0, 0]);
                answer.extend(&query[12..at + 5]);
                if !data.is_empty() {
                    answer.extend([0xc0, 12]);
                    answer.extend(wanted.to_be_bytes());
                    answer.extend([0, 1, 0, 0, 0, 30, 0]);
                    answer.push(u8::try_from(data.len()).unwrap());
                    answer.extend(data);
                }
                let _ = socket.send_to(&answer, from);
            }
        });
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
        // Sockets of the threads keep the namespace; the pair goes now.
        let near = format!("kno{}a", self.name.rsplit('-').next().unwrap());
        let _ = Command::new("ip").args(["link", "delete", &near]).status();
    }
}
