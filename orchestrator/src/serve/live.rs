//! Server-sent events: what has changed on a page that is open.
//!
//! A topic is what a page shows. While somebody looks at it, one task reads it every second, however many look; each
//! stream sends what differs from what it sent before. Parts of a page are sent as the markup that the page itself is
//! made of, and squares of the grid one by one.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::sync::watch;

use super::grid::Cell;
use super::job::Known;
use super::page::Refusal;
use super::sweep::{LIVE, attempts_table, running_jobs, summary};
use super::{Site, sweeps};
use crate::store::page::{Table, Wanted};

/// Between two looks. One that takes long is followed by a pause that is longer still.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const PAUSE_PER_LOOK: u32 = 5;
/// Topics that are followed at a time.
const TOPICS: usize = 64;

/// What a page shows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Topic {
    Sweeps,
    Sweep { name: String, metric: String },
    Job { key: String },
}

/// What is to be seen of a topic.
#[derive(Debug, Default)]
pub(super) struct Feed {
    /// Elements by id: what is inside them.
    parts: BTreeMap<&'static str, String>,
    /// Squares of jobs that something has happened to lately, by key.
    cells: BTreeMap<String, Cell>,
    /// Why there is nothing new.
    trouble: Option<String>,
}

pub(super) async fn sweeps(
    State(site): State<Arc<Site>>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refusal> {
    stream(site, Topic::Sweeps).await
}

pub(super) async fn sweep(
    State(site): State<Arc<Site>>,
    Path(name): Path<String>,
    Query(asked): Query<Wanted>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refusal> {
    site.check_sweep(&name).await?;
    stream(site, Topic::Sweep { name, metric: asked.metric }).await
}

pub(super) async fn job(
    State(site): State<Arc<Site>>,
    Path(key): Path<String>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refusal> {
    Known::read(&site, &key).await?;
    stream(site, Topic::Job { key }).await
}

async fn stream(site: Arc<Site>, topic: Topic) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refusal> {
    let state = Watcher {
        feed: subscribe(&site, topic).await?,
        ended: site.end.subscribe(),
        sent: Arc::default(),
        waiting: VecDeque::new(),
    };
    let events = unfold(state, |mut state| async move { Some((Ok(state.next().await?), state)) });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))))
}

struct Watcher {
    feed: watch::Receiver<Arc<Feed>>,
    ended: watch::Receiver<bool>,
    sent: Arc<Feed>,
    waiting: VecDeque<Event>,
}

impl Watcher {
    /// The next event; `None` once the server is to end.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Some(event);
            }
            tokio::select! {
                changed = self.feed.changed() => changed.ok()?,
                _ = self.ended.wait_for(|ended| *ended) => return None,
            }
            let feed = self.feed.borrow_and_update().clone();
            self.waiting.extend(differences(&self.sent, &feed));
            self.sent = feed;
        }
    }
}

/// Events that make what was sent what there is.
fn differences(sent: &Feed, feed: &Feed) -> Vec<Event> {
    #[derive(serde::Serialize)]
    struct Part<'a> {
        id: &'a str,
        html: &'a str,
    }
    let mut events = Vec::new();
    if let Some(trouble) = &feed.trouble {
        events.push(event("trouble", trouble));
        return events;
    }
    for (id, html) in &feed.parts {
        if sent.parts.get(id) != Some(html) {
            events.push(event("part", &Part { id, html }));
        }
    }
    let cells: Vec<&Cell> =
        feed.cells.iter().filter(|(key, cell)| sent.cells.get(*key) != Some(*cell)).map(|(_, cell)| cell).collect();
    if !cells.is_empty() {
        events.push(event("cells", &cells));
    }
    // So that a page knows that it is up to date.
    events.push(event("seen", &0));
    events
}

/// One line of JSON under a name.
fn event(name: &str, data: &impl serde::Serialize) -> Event {
    Event::default().event(name).data(serde_json::to_string(data).expect("texts and numbers serialise"))
}

/// Follows the topic, unless it is followed already.
async fn subscribe(site: &Arc<Site>, topic: Topic) -> Result<watch::Receiver<Arc<Feed>>, Refusal> {
    let mut feeds = site.feeds.lock().await;
    if let Some(feed) = feeds.get(&topic) {
        let mut feed = feed.subscribe();
        feed.mark_changed();
        return Ok(feed);
    }
    if feeds.len() >= TOPICS {
        let words = format!("{TOPICS} views are followed already; close some of them.");
        return Err(Refusal { status: StatusCode::SERVICE_UNAVAILABLE, words });
    }
    let (feed, receiver) = watch::channel(Arc::default());
    feeds.insert(topic.clone(), feed.clone());
    tokio::spawn(follow(site.clone(), topic, feed));
    Ok(receiver)
}

async fn follow(site: Arc<Site>, topic: Topic, feed: watch::Sender<Arc<Feed>>) {
    let mut ended = site.end.subscribe();
    loop {
        let begun = Instant::now();
        let seen = look(&site, &topic).await;
        feed.send_replace(Arc::new(
            seen.unwrap_or_else(|refusal| Feed { trouble: Some(refusal.words), ..Feed::default() }),
        ));
        let pause = LOOK_EVERY.max(begun.elapsed() * PAUSE_PER_LOOK);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = ended.wait_for(|ended| *ended) => return,
        }
        // Under the lock that subscribers come by.
        let mut feeds = site.feeds.lock().await;
        if feed.receiver_count() == 0 {
            feeds.remove(&topic);
            return;
        }
    }
}

async fn look(site: &Site, topic: &Topic) -> Result<Feed, Refusal> {
    match topic {
        Topic::Sweeps => {
            let all = site.read_one(Table::Sweeps, &Wanted::default()).await?;
            Ok(Feed { parts: [("sweeps", sweeps::list(&all).into_string())].into(), ..Feed::default() })
        }
        Topic::Job { key } => {
            let parts = Known::read(site, key).await?.parts();
            Ok(Feed { parts: parts.map(|(id, part)| (id, part.into_string())).into(), ..Feed::default() })
        }
        Topic::Sweep { name, metric } => {
            let wanted = Wanted { sweep: name.clone(), metric: metric.clone(), ..Wanted::default() };
            let [sweep, running, curves, attempts] = LIVE;
            let [sweep, running, curves, attempts, changed] =
                site.read([sweep, running, curves, attempts, Table::Changed], &wanted).await?;
            if sweep.is_empty() {
                return Err(Refusal::not_found("The sweep is gone."));
            }
            let parts = [
                ("summary", summary(&sweep)),
                ("running", running_jobs(&running, &curves)),
                ("attempts", attempts_table(&attempts)),
            ];
            let cells = (0..changed.len()).map(|row| Cell::of(&changed, row)).map(|cell| (cell.key.clone(), cell));
            Ok(Feed {
                parts: parts.map(|(id, part)| (id, part.into_string())).into(),
                cells: cells.collect(),
                trouble: None,
            })
        }
    }
}
