//! Connections that are cut without a word: packets go nowhere, as when a firewall forgets a connection or a switch
//! loses power. Neither side is told; time limits alone help.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::bench::{Bench, SPEC};
use crate::harness::transcript;

/// TCP in front of a Unix socket. Connections older than the last cut are held open, and carry nothing.
struct Proxy {
    port: u16,
    accepted: Arc<AtomicUsize>,
    cut_before: Arc<AtomicUsize>,
}

impl Proxy {
    fn new(socket: PathBuf) -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let (accepted, cut_before) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (counter, cut) = (Arc::clone(&accepted), Arc::clone(&cut_before));
        thread::spawn(move || {
            for client in listener.incoming().filter_map(Result::ok) {
                let number = counter.fetch_add(1, Ordering::SeqCst);
                let Ok(server) = UnixStream::connect(&socket) else { continue };
                let (from_client, from_server) =
                    (client.try_clone().expect("it is open"), server.try_clone().expect("it is open"));
                let (up, down) = (Arc::clone(&cut), Arc::clone(&cut));
                thread::spawn(move || carry(number, &up, from_client, server));
                thread::spawn(move || carry(number, &down, from_server, client));
            }
        });
        Proxy { port, accepted, cut_before }
    }

    /// From now on nothing that is connected hears anything.
    fn cut(&self) {
        self.cut_before.store(self.accepted.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

fn carry(number: usize, cut_before: &AtomicUsize, mut from: impl Read, mut to: impl Write) {
    let mut bytes = [0; 16 << 10];
    while let Ok(length @ 1..) = from.read(&mut bytes) {
        if number < cut_before.load(Ordering::SeqCst) {
            // What was read is lost; both ends stay open, until the test ends.
            loop {
                thread::sleep(Duration::from_hours(1));
            }
        }
        if to.write_all(&bytes[..length]).is_err() {
            return;
        }
    }
}

#[test]
fn connections_that_go_dead_without_a_word_are_given_up() {
    let bench = Bench::new(SPEC);
    let url = String::from_utf8(bench.sweep(&["db", "url"]).stdout).expect("text");
    let url = url::Url::parse(url.trim()).expect("a URL");
    let part = |name: &str| url.query_pairs().find(|(key, _)| key == name).expect("it is in the URL").1.into_owned();
    let proxy = Proxy::new(PathBuf::from(part("host")).join(".s.PGSQL.5432"));
    let url = format!("postgres://sweep:{}@127.0.0.1:{}/sweep?sslmode=disable", part("password"), proxy.port);
    let launch = bench.launch_with("sweep.yaml", "delay@40", &[("DATABASE_URL", &url)]);
    bench.wait_for_checkpoint();
    proxy.cut();
    let output = launch.wait();
    assert!(output.status.success(), "{}\n{}", transcript(&output), bench.story());
    assert!(transcript(&output).contains("the database answers again"), "{}", transcript(&output));
    bench.assert_done_once();
}
