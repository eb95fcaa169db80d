//! `sweep serve`: a live page over all sweeps.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::Serialize;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::output::{self, Exit, Failure, data, say};
use super::{next, target};
use crate::backend::host_name;
use crate::serve::guard::{TOKEN_LENGTH_MIN, is_token};
use crate::serve::serve;

const PORT: u16 = 8040;

const EXAMPLES: &str = "\
From another machine a tunnel is safest, since nothing is encrypted otherwise. There: ssh -L 8040:localhost:8040 THIS_MACHINE,
then open http://localhost:8040/.

  sweep serve
  sweep serve --port 0 --json
  sweep serve --listen 0.0.0.0";

/// Options of `sweep serve`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Address to listen on. Any but this machine's own loopback wants a token of those who look.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST), value_name = "ADDRESS", value_parser = address)]
    listen: IpAddr,
    /// Port; 0 takes a free one.
    #[arg(long, default_value_t = PORT, value_name = "PORT")]
    port: u16,
    /// What a browser has to know, also on loopback [default: none on loopback, else one is made and printed]. A
    /// command line can be read by others of this machine: rather set it in the environment.
    #[arg(long, env = "SWEEP_SERVE_TOKEN", hide_env_values = true, value_name = "TOKEN", value_parser = token)]
    token: Option<String>,
    /// Print one JSON object with the address, then serve.
    #[arg(long)]
    json: bool,
}

/// Of `sweep serve --json`.
#[derive(Debug, Serialize)]
struct Served<'a> {
    /// To open, with the token.
    url: &'a str,
    address: SocketAddr,
    token: Option<&'a str>,
}

fn address(text: &str) -> Result<IpAddr, String> {
    let port = text.parse::<SocketAddr>().map(|both| format!(": --listen {} --port {}", both.ip(), both.port()));
    text.parse().map_err(|_| {
        format!("an IP address is wanted, such as 0.0.0.0; its port is --port's{}", port.unwrap_or_default())
    })
}

fn token(text: &str) -> Result<String, String> {
    if is_token(text) {
        Ok(text.to_owned())
    } else {
        Err(format!("{TOKEN_LENGTH_MIN} to 200 letters, digits, `-`, `_`, `.` or `~` are wanted"))
    }
}

pub(super) async fn run(args: Args) -> Result<Exit, Failure> {
    let store = target::store().await?;
    let wanted = SocketAddr::new(args.listen, args.port);
    let listener = TcpListener::bind(wanted).await.map_err(|error| unbound(wanted, &error))?;
    let address = listener
        .local_addr()
        .map_err(|error| Failure::environment("can't find out the address that it listens on").because(&error))?;
    let beyond = !address.ip().is_loopback();
    let token = args.token.or_else(|| beyond.then(made));
    let url = url(address, token.as_deref());
    // Set up before the address is told: who reads it may send a signal at once.
    let failed = |error: std::io::Error| Failure::environment("can't wait for signals").because(&error);
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt()).map_err(failed)?, signal(SignalKind::terminate()).map_err(failed)?);
    let end = async move {
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
    };
    if args.json {
        output::json("sweep.serve/1", &Served { url: &url, address, token: token.as_deref() });
    } else {
        data(&url);
        if beyond {
            say(&format!(
                "who has the token sees everything here, logs and paths too, and nothing is encrypted on the way\n\n\
                 hint: `sweep serve` without --listen, and `ssh -L {port}:localhost:{port} THIS_MACHINE` there, is safer",
                port = address.port()
            ));
        }
        say("Ctrl-C ends it");
    }
    serve(store, listener, token, next::next, end)
        .await
        .map_err(|error| Failure::environment(format!("can't serve on {address}")).because(&error))?;
    Ok(Exit::Done)
}

/// 256 random bits.
fn made() -> String {
    let [one, two] = rand::random::<[u128; 2]>();
    format!("{one:032x}{two:032x}")
}

/// What to open. An address that stands for all of a machine's can't be opened: its name can.
fn url(address: SocketAddr, token: Option<&str>) -> String {
    let host = match address.ip() {
        ip if ip.is_unspecified() => host_name().unwrap_or_else(|_| "localhost".to_owned()),
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    let token = token.map(|token| format!("?token={token}")).unwrap_or_default();
    format!("http://{host}:{}/{token}", address.port())
}

fn unbound(address: SocketAddr, error: &std::io::Error) -> Failure {
    let failure = Failure::environment(format!("can't listen on {address}")).because(error);
    match error.kind() {
        ErrorKind::AddrInUse => {
            failure.hint("another program, maybe another `sweep serve`, has that port: `--port 0` takes a free one")
        }
        ErrorKind::AddrNotAvailable => {
            failure.hint("that is no address of this machine; `--listen 0.0.0.0` listens on all of them")
        }
        ErrorKind::PermissionDenied => {
            failure.hint("ports below 1024 are for root: take another one, such as `--port 8040`")
        }
        _ => failure,
    }
}
