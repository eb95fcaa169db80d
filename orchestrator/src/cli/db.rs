//! `sweep db`: the private database, or what `DATABASE_URL` names instead.

use std::net::SocketAddrV4;

use serde::Serialize;

use super::output::{self, Exit, Failure};
use crate::store::private_postgres::{self, ListenAddress};
use crate::store::{self, Store};

/// Options of `sweep db`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Start the private database (other commands do so themselves) and bring its schema up to date.
    Start {
        /// From now on, listen for other machines too, on this address of this machine, over TLS.
        #[arg(long, value_name = "ADDRESS[:PORT]")]
        listen: Option<ListenAddress>,
        /// Listen for this machine alone again.
        #[arg(long, conflicts_with = "listen")]
        no_listen: bool,
    },
    /// Stop the private database. Workers keep training and deliver once it is up again.
    Stop,
    /// Show where the database is and whether it is up.
    Status {
        /// As JSON, schema `sweep.db.status/1`.
        #[arg(long)]
        json: bool,
    },
    /// Bring the schema of the database up to date.
    Migrate,
    /// Start the database and print its URL, for psql, Python or a notebook. It holds the password.
    Url {
        /// The one for other machines, for which the private database listens.
        #[arg(long)]
        listen: bool,
    },
}

/// Body of `sweep db status --json`.
#[derive(Debug, Serialize)]
struct Status {
    /// `private` or `DATABASE_URL`.
    source: &'static str,
    /// Whether it takes connections.
    up: bool,
    /// The private cluster's folder, or the database and its host.
    place: Option<String>,
    socket: Option<String>,
    /// Address and port for other machines, where a private one listens for them.
    listen: Option<String>,
    pid: Option<i32>,
    /// The user that a private server runs as.
    server_user: Option<String>,
    /// Major version of a private cluster.
    postgres: Option<String>,
    /// Newest migration applied; none where the database is empty or down.
    schema_version: Option<i64>,
    /// Newest migration that this `sweep` knows.
    schema_known: i64,
    /// Why it can't be used.
    problem: Option<String>,
}

pub(super) async fn run(args: Args) -> Result<Exit, Failure> {
    match args.command {
        Command::Start { listen, no_listen } => start(listen, no_listen).await,
        Command::Stop => stop(),
        Command::Status { json } => status(json).await,
        Command::Migrate => migrate().await,
        Command::Url { listen: false } => url().await,
        Command::Url { listen: true } => node_url().await,
    }
}

async fn start(listen: Option<ListenAddress>, no_listen: bool) -> Result<Exit, Failure> {
    let home = store::home();
    if listen.is_some() || no_listen {
        not_with_another("is not used, and listens for nobody")?;
    }
    let address = listen.map(|wanted| private_postgres::listen(&home, wanted)).transpose()?;
    if no_listen && !private_postgres::listen_no_more(&home)? {
        output::say("it did not listen for other machines");
    }
    Store::connect().await?;
    if let Some(options) = store::named_database()? {
        output::say(&format!("DATABASE_URL is set: using {}", store::place(&options)));
    } else {
        let status = private_postgres::status(&home)?;
        let folder = status.folder.unwrap_or_default();
        let listens = status.listen.map_or(String::new(), |address| format!(", and listens on {address}"));
        output::say(&format!(
            "PostgreSQL {} is up in {}{listens}",
            status.version.unwrap_or_default(),
            folder.display()
        ));
    }
    if let Some(address) = address {
        output::say(&exposed(address));
    }
    Ok(Exit::Done)
}

/// What it means to listen.
fn exposed(address: SocketAddrV4) -> String {
    format!(
        "warning: every machine that reaches {address} can connect now, try passwords and hold connections. In comes who has \
         the password of `sweep` (256 random bits, in files that only you may read), over TLS; it may change and delete all \
         results. A firewall that lets only the nodes through is the better door\n\n\
         hint: `sweep launch --backend slurm` gives workers the URL by itself; `sweep db start --no-listen` takes it back"
    )
}

/// Listening is the private database's.
fn not_with_another(what: &str) -> Result<(), Failure> {
    if store::named_database()?.is_some() {
        return Err(Failure::bad_input(format!("DATABASE_URL is set: the private database {what}"))
            .hint("unset DATABASE_URL, and try again"));
    }
    Ok(())
}

async fn node_url() -> Result<Exit, Failure> {
    not_with_another("has no URL for nodes")?;
    Store::connect().await?;
    let Some(url) = store::node_url().await? else {
        return Err(Failure::bad_input("the private database listens for no other machine")
            .hint("`sweep db start --listen ADDRESS`, with an address of this machine that the others reach"));
    };
    output::data(&url);
    Ok(Exit::Done)
}

async fn migrate() -> Result<Exit, Failure> {
    let version = Store::connect().await?.schema_version().await?;
    output::say(&format!("the schema is at version {version}"));
    Ok(Exit::Done)
}

fn stop() -> Result<Exit, Failure> {
    let home = store::home();
    let stopped = private_postgres::stop(&home)?;
    let place = home.join("postgres");
    if stopped {
        output::say(&format!("stopped the private database in {}", place.display()));
    } else {
        output::say(&format!("the private database in {} was not running", place.display()));
    }
    Ok(Exit::Done)
}

async fn url() -> Result<Exit, Failure> {
    Store::connect().await?;
    match std::env::var("DATABASE_URL") {
        Ok(url) if !url.is_empty() => output::data(&url),
        _ => output::data(&private_postgres::ensure_running(&store::home())?.url()),
    }
    Ok(Exit::Done)
}

async fn status(json: bool) -> Result<Exit, Failure> {
    let status = examine().await?;
    if json {
        output::json("sweep.db.status/1", &status);
        return Ok(Exit::Done);
    }
    let mut lines =
        vec![("database", status.source.to_owned()), ("state", if status.up { "up" } else { "down" }.to_owned())];
    let schema = match status.schema_version {
        Some(version) if version == status.schema_known => Some(format!("{version} (current)")),
        Some(version) => Some(format!("{version} (this `sweep` knows {})", status.schema_known)),
        None => None,
    };
    let optional = [
        ("place", status.place),
        ("socket", status.socket),
        ("listens on", status.listen),
        ("process", status.pid.map(|pid| pid.to_string())),
        ("runs as", status.server_user),
        ("PostgreSQL", status.postgres),
        ("schema", schema),
        ("problem", status.problem),
    ];
    lines.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
    for (name, value) in lines {
        output::data(&format!("{name:<10}  {value}"));
    }
    Ok(Exit::Done)
}

/// Starts nothing, and takes a database that can't be used for an answer.
async fn examine() -> Result<Status, Failure> {
    let mut status = Status {
        source: "private",
        up: false,
        place: None,
        socket: None,
        listen: None,
        pid: None,
        server_user: None,
        postgres: None,
        schema_version: None,
        schema_known: store::newest_version(),
        problem: None,
    };
    if let Some(options) = store::named_database()? {
        status.source = "DATABASE_URL";
        status.place = Some(store::place(&options));
    } else {
        let private = private_postgres::status(&store::home())?;
        status.up = private.up;
        status.place = private.folder.map(|folder| folder.display().to_string());
        status.socket = private.socket.map(|socket| socket.display().to_string());
        status.listen = private.listen.map(|address| address.to_string());
        status.pid = private.pid;
        status.server_user = private.user;
        status.postgres = private.version;
    }
    match Store::connect_existing().await {
        Ok(Some(store)) => {
            status.up = true;
            status.schema_version = Some(store.schema_version().await?);
        }
        Ok(None) => status.up |= status.source == "DATABASE_URL",
        Err(error) => {
            let cause = std::error::Error::source(&error).map_or(String::new(), |source| format!(": {source}"));
            status.problem = Some(format!("{error}{cause}"));
        }
    }
    Ok(status)
}
