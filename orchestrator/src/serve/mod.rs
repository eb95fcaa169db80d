//! The live page over the store (`sweep serve`): HTTP that only reads, as the role that may only read.
//!
//! Each view is a URL, made of tables that are one query each (`store/page.rs`); a view reads its tables in one
//! snapshot. Pages work as they come; where scripts run, server-sent events keep them up to date (`live.rs`).

mod compare;
mod data;
mod figures;
mod grid;
pub mod guard;
mod job;
mod laws;
mod live;
mod log;
mod next;
mod page;
mod plot;
mod results;
mod rows;
mod sweep;
mod sweeps;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, Semaphore, watch};

use crate::store::Store;
use crate::store::page::{Table, Wanted};
use crate::store::snapshot::Readers;
use crate::store::sql::SqlError;

use live::{Feed, Topic};
pub use next::{Advise, Next, NextJob};
use page::{Refusal, hinted};
use rows::Rows;

/// How long a query of a page may run.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Rows that a view reads of a table; files have all.
const ROWS: usize = 20_000;
/// Views that are read at a time: each takes one or two connections of the 40 that the role has.
const VIEWS: usize = 8;
/// Queries of a view that run side by side, where there are long ones.
const LANES: usize = 2;
/// Between looks at which connections are no longer needed.
const TIDY_EVERY: Duration = Duration::from_secs(30);
/// How long answers under way may take once the server is to end.
const FAREWELL: Duration = Duration::from_secs(3);

/// What the server serves, and to whom.
pub struct Site {
    store: Store,
    /// Whether only this machine can reach it.
    loopback: bool,
    /// Port that it listens on.
    port: u16,
    /// What a browser has to know; `None`: nothing.
    token: Option<String>,
    /// What to run next, of results.
    advise: Advise,
    readers: Readers,
    views: Semaphore,
    pictures: Mutex<figures::Kept>,
    feeds: Mutex<BTreeMap<Topic, watch::Sender<Arc<Feed>>>>,
    end: watch::Sender<bool>,
}

/// Serves `store` on `listener` until `end` says so; then streams end, and answers under way have three seconds.
/// `advise` says what to run next: what may be run, the command line knows.
///
/// # Errors
/// Where the listener fails.
pub async fn serve(
    store: Store,
    listener: TcpListener,
    token: Option<String>,
    advise: Advise,
    end: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    let site = Arc::new(Site {
        readers: Readers::new(store.clone()),
        store,
        loopback: address.ip().is_loopback(),
        port: address.port(),
        token,
        advise,
        views: Semaphore::new(VIEWS),
        pictures: Mutex::new(BTreeMap::new()),
        feeds: Mutex::new(BTreeMap::new()),
        end: watch::Sender::new(false),
    });
    let (told, mut ended) = (site.end.clone(), site.end.subscribe());
    let tidying = site.clone();
    let graceful = axum::serve(listener, router(site)).with_graceful_shutdown(async move {
        end.await;
        told.send_replace(true);
    });
    let graceful = graceful.into_future();
    tokio::select! {
        result = graceful => result,
        () = async {
            let _ = ended.wait_for(|ended| *ended).await;
            tokio::time::sleep(FAREWELL).await;
        } => Ok(()),
        () = async {
            loop {
                tokio::time::sleep(TIDY_EVERY).await;
                tidying.readers.tidy().await;
            }
        } => unreachable!("it goes on"),
    }
}

fn router(site: Arc<Site>) -> Router {
    Router::new()
        .route("/", get(sweeps::sweeps))
        .route("/live", get(live::sweeps))
        .route("/sweep/{sweep}", get(sweep::sweep))
        .route("/sweep/{sweep}/live", get(live::sweep))
        .route("/sweep/{sweep}/law.svg", get(figures::law))
        .route("/sweep/{sweep}/forecast.svg", get(figures::forecast))
        .route("/sweep/{sweep}/results", get(results::results))
        .route("/sweep/{sweep}/next", get(next::next))
        .route("/job/{job}", get(job::job))
        .route("/job/{job}/live", get(live::job))
        .route("/job/{job}/log/{nth}/{file}", get(log::log))
        .route("/compare", get(compare::compare))
        .route("/data/{file}", get(data::data))
        .route("/page.css", get(|| async { asset("text/css; charset=utf-8", include_str!("page.css")) }))
        .route("/page.js", get(|| async { asset("text/javascript; charset=utf-8", include_str!("page.js")) }))
        .route("/icon.svg", get(|| async { asset("image/svg+xml", include_str!("icon.svg")) }))
        .fallback(|| async { Refusal::not_found("There is no such page; the list of sweeps is at /.") })
        .layer(axum::middleware::from_fn_with_state(site.clone(), guard::guard))
        .with_state(site)
}

fn asset(content_type: &'static str, text: &'static str) -> impl IntoResponse {
    ([(CONTENT_TYPE, content_type)], text)
}

impl Site {
    /// Tables of a view, in one snapshot.
    async fn read<const COUNT: usize>(
        &self,
        tables: [Table; COUNT],
        wanted: &Wanted,
    ) -> Result<[Rows; COUNT], Refusal> {
        self.read_by(tables, wanted, 1).await
    }

    /// The same of tables that take long: the longest should be first.
    async fn read_side_by_side<const COUNT: usize>(
        &self,
        tables: [Table; COUNT],
        wanted: &Wanted,
    ) -> Result<[Rows; COUNT], Refusal> {
        self.read_by(tables, wanted, LANES).await
    }

    async fn read_by<const COUNT: usize>(
        &self,
        tables: [Table; COUNT],
        wanted: &Wanted,
        lanes: usize,
    ) -> Result<[Rows; COUNT], Refusal> {
        let texts: Vec<String> =
            tables.iter().map(|table| table.sql(wanted)).collect::<Result<_, _>>().map_err(Refusal::bad)?;
        let _permit = self.views.acquire().await.expect("nobody closes it");
        let answers =
            self.readers.snapshot(&texts, TIMEOUT, Some(ROWS), lanes).await.map_err(|error| refused(&error))?;
        let rows = tables.iter().zip(texts).zip(answers);
        let rows: Vec<Rows> = rows.map(|((table, text), answer)| Rows::new(*table, wanted, text, answer)).collect();
        Ok(rows.try_into().unwrap_or_else(|_| unreachable!("a table of rows each")))
    }

    async fn read_one(&self, table: Table, wanted: &Wanted) -> Result<Rows, Refusal> {
        let [rows] = self.read([table], wanted).await?;
        Ok(rows)
    }

    /// The names of all sweeps are few: a page that is of none says so.
    async fn check_sweep(&self, name: &str) -> Result<(), Refusal> {
        let rows = self.read_one(Table::Names, &Wanted::default()).await?;
        if (0..rows.len()).any(|row| rows.text(row, "sweep") == name) {
            return Ok(());
        }
        let names: Vec<&str> = (0..rows.len()).map(|row| rows.text(row, "sweep")).collect();
        Err(Refusal::not_found(format!("There is no sweep `{name}` here; these are: {}.", names.join(", "))))
    }
}

fn refused(error: &SqlError) -> Refusal {
    let mut refusal = match error {
        SqlError::Store(error) => Refusal::unavailable(error, error.hint().as_deref()),
        SqlError::Timeout(_) => {
            Refusal { status: StatusCode::SERVICE_UNAVAILABLE, words: format!("{error}; ask for less.") }
        }
        SqlError::Refused { message, hint, .. } => {
            Refusal::bad(hinted(&format!("The database refused the query: {message}"), hint.as_deref()))
        }
        SqlError::NotAQuery { .. } | SqlError::Decode { .. } => Refusal::bad(format!("{error}.")),
    };
    if let Some(source) = std::error::Error::source(error) {
        refusal.words = format!("{} {source}", refusal.words);
    }
    refusal
}
