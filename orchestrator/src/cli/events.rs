//! `sweep events`: what happened, a line each, and what goes on happening.

use std::io::Write;
use std::os::fd::AsFd;
use std::time::Duration;

use chrono::{DateTime, Local, NaiveDate, NaiveTime, SecondsFormat, TimeDelta, TimeZone, Utc};
use clap::ValueEnum;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use super::output::{Exit, Failure, one_line, say_line};
use super::progress::{short, time};
use super::status;
use crate::spec::quantity::duration;
use crate::store::{Cursor, EndListener, FeedEntry, FeedFilter, Store, StoreError};

/// Between two looks at the database, if nothing is heard before.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Pause between two tries to reach a database that is away.
const AWAY_PAUSE: Duration = Duration::from_secs(1);

/// Options of `sweep events`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
What happened to one sweep, and what goes on happening, until Ctrl-C:

  sweep events emoji -f

For a program: JSON, a line an event. It keeps the `cursor` of the last line that it has dealt with, and goes on there
after a restart of its own or of anything else; no event is missed and none comes twice:

  sweep events --json -f --after \"$(cat cursor)\"

Fields are described in docs/events.md.")]
pub(super) struct Args {
    /// Name of the sweep; without one, all.
    sweep: Option<String>,
    /// Go on with what happens, until Ctrl-C.
    #[arg(short, long)]
    follow: bool,
    /// Leave out what is older: `2h`, `30m`, `3d`, `2026-11-30`, or a time such as `2026-11-30T12:00:00Z`.
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<DateTime<Utc>>,
    /// Only these kinds; several with commas.
    #[arg(long = "kind", value_name = "KIND", value_enum, value_delimiter = ',')]
    kinds: Vec<Kind>,
    /// Training curves too, a line a step.
    #[arg(long)]
    metrics: bool,
    /// Begin behind the event that had this cursor.
    #[arg(long, value_name = "CURSOR")]
    after: Option<Cursor>,
    /// As JSON, a line an event, schema `sweep.event/1`.
    #[arg(long)]
    json: bool,
}

/// Kinds of events as people and programs name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Kind {
    /// A job was stored, to be run.
    Queued,
    /// An attempt was recorded and handed to the backend.
    Submitted,
    /// A worker took the attempt.
    Claimed,
    /// The runner began.
    Started,
    /// The runner wrote a checkpoint.
    Checkpoint,
    /// The runner measured something on held-out data.
    Measured,
    /// The runner could not measure what was planned.
    Unmeasured,
    /// The attempt finished and its job is done.
    Finished,
    /// The attempt failed.
    Failed,
    /// The attempt stopped after a checkpoint.
    Stopped,
    /// The attempt ended without a word.
    Lost,
    /// The job failed for good.
    GivenUp,
    /// The job was cancelled, or an attempt of it for that reason.
    Cancelled,
    /// `sweep retry` gave the job another go.
    Retried,
    /// Results of others were read.
    Imported,
    /// An attempt was found in the job's folder.
    Adopted,
    /// A law was fitted.
    Fit,
    /// A step of a training curve.
    Metrics,
}

/// Kinds whose name in the store is another one.
const STORED_AS: &[(&str, &str)] = &[("submitted", "intent"), ("given_up", "given up"), ("retried", "retry granted")];

impl Kind {
    fn stored(self) -> String {
        let name = self.to_possible_value().expect("none is hidden").get_name().to_owned();
        STORED_AS.iter().find(|(public, _)| *public == name).map_or(name, |(_, stored)| (*stored).to_owned())
    }
}

/// The name of a kind of the store.
fn public_name(stored: &str) -> &str {
    STORED_AS.iter().find(|(_, name)| *name == stored).map_or(stored, |(public, _)| public)
}

/// A length of time before now, a day, or a time.
fn since(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(secs) = duration(text) {
        let ago = i64::try_from(secs).ok().and_then(TimeDelta::try_seconds);
        return ago.and_then(|ago| Utc::now().checked_sub_signed(ago)).ok_or_else(|| "that is too long ago".to_owned());
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.to_utc());
    }
    let midnight = text.parse::<NaiveDate>().ok().map(|day| day.and_time(NaiveTime::MIN));
    let local = midnight.and_then(|midnight| Local.from_local_datetime(&midnight).earliest());
    local.map(|local| local.to_utc()).ok_or_else(|| {
        "write how long ago (`90s`, `30m`, `2h`, `3d`), a day (`2026-11-30`) or a time (`2026-11-30T12:00:00Z`)"
            .to_owned()
    })
}

pub(super) async fn run(args: Args) -> Result<Exit, Failure> {
    let Some(store) = Store::connect_stored().await? else {
        return Err(Failure::bad_input("nothing has been launched here yet").hint("`sweep launch SPEC` starts a sweep"));
    };
    let sweep_id = match &args.sweep {
        Some(name) => Some(status::find(&store, name).await?.sweep_id),
        None => None,
    };
    let metrics = args.metrics || args.kinds.contains(&Kind::Metrics);
    let kinds = (!args.kinds.is_empty()).then(|| args.kinds.iter().map(|kind| kind.stored()).collect());
    let filter = FeedFilter { sweep_id, kinds, metrics, since: args.since };
    let mut position = args.after.unwrap_or(Cursor::START);
    if !args.follow {
        print_new(&store, &filter, &mut position, args.json).await?;
        return Ok(Exit::Done);
    }
    let mut interrupt = signal(SignalKind::interrupt())
        .map_err(|error| Failure::environment("can't handle signals").because(&error))?;
    tokio::select! {
        result = follow(store, &filter, position, args.json) => result.map(|()| Exit::Done),
        _ = interrupt.recv() => Ok(Exit::Done),
    }
}

/// Writes what is new, again and again, until nobody reads it.
async fn follow(mut store: Store, filter: &FeedFilter, mut position: Cursor, json: bool) -> Result<(), Failure> {
    let mut hints: Option<EndListener> = None;
    let mut away = false;
    loop {
        if hints.is_none() {
            hints = store.listen_for_checkpoints().await.ok();
        }
        let pause = match print_new(&store, filter, &mut position, json).await {
            Ok(Pipe::Closed) => return Ok(()),
            Ok(Pipe::Open) => {
                if std::mem::take(&mut away) {
                    say_line("the database answers again");
                }
                LOOK_EVERY
            }
            Err(error) if error.is_transient() => {
                if !std::mem::replace(&mut away, true) {
                    say_line(&format!("the database doesn't answer, trying again: {error}"));
                }
                hints = None;
                if let Ok(Some(again)) = Store::connect_stored().await {
                    store = again;
                }
                AWAY_PAUSE
            }
            Err(error) => return Err(error.into()),
        };
        tokio::select! {
            () = sleep(pause) => {}
            () = heard(&mut hints) => {}
        }
        if is_closed(&std::io::stdout()) {
            return Ok(());
        }
    }
}

/// Resolves when the database says that something happened; a listener that is cut off is made anew.
async fn heard(hints: &mut Option<EndListener>) {
    let Some(listener) = hints else { return std::future::pending().await };
    if listener.next().await.is_err() {
        *hints = None;
    }
}

/// Whether anybody reads what we write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pipe {
    Open,
    Closed,
}

/// Writes what is new behind `position`, which moves with it, as far as an error lets it.
async fn print_new(store: &Store, filter: &FeedFilter, position: &mut Cursor, json: bool) -> Result<Pipe, StoreError> {
    let horizon = store.feed_horizon().await?;
    loop {
        let page = store.feed_page(filter, *position, horizon).await?;
        let mut text = String::new();
        for entry in &page.entries {
            text.push_str(&if json { json_line(entry) } else { line(entry, &entry.at.with_timezone(&Local)) });
            text.push('\n');
        }
        let mut stdout = std::io::stdout().lock();
        if stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).is_err() {
            return Ok(Pipe::Closed);
        }
        *position = page.reached;
        if page.is_last {
            return Ok(Pipe::Open);
        }
    }
}

/// Whether the other end of a pipe is gone.
fn is_closed(stdout: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    let heard = poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0);
    heard && fds[0].revents().is_some_and(|events| events.intersects(PollFlags::POLLERR | PollFlags::POLLNVAL))
}

/// An event for programs. Names and meanings of fields are described in `docs/events.md`, and never change.
#[derive(Debug, Serialize)]
struct Line<'a> {
    schema: &'static str,
    cursor: String,
    at: String,
    kind: &'a str,
    sweeps: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    job_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_kind: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resumed_from_samples: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    samples_seen: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    train_secs: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    eval_secs: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fit_id: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dataset: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metric: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    law: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r2: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    values: Option<&'a Map<String, Value>>,
}

fn json_line(entry: &FeedEntry) -> String {
    let line = Line {
        schema: "sweep.event/1",
        cursor: entry.cursor.to_string(),
        at: entry.at.to_rfc3339_opts(SecondsFormat::Micros, true),
        kind: public_name(&entry.kind),
        sweeps: &entry.sweeps,
        job_key: entry.job_key.as_deref(),
        model: entry.model.as_deref(),
        attempt: entry.attempt,
        node: entry.node.as_deref(),
        reason: entry.detail.as_deref(),
        failure_kind: entry.failure_kind.as_deref(),
        device: entry.device.as_deref(),
        resumed_from_samples: entry.resumed_from_samples,
        samples_seen: entry.samples_seen,
        step: entry.step,
        path: entry.path.as_deref(),
        sha256: entry.sha256.as_deref(),
        train_secs: entry.train_secs,
        eval_secs: entry.eval_secs,
        fit_id: entry.fit_id,
        dataset: entry.dataset.as_deref(),
        metric: entry.metric.as_deref(),
        law: entry.law.as_deref(),
        verdict: entry.verdict.as_deref(),
        r2: entry.r2,
        values: entry.values.as_ref(),
    };
    serde_json::to_string(&line).expect("plain fields serialise")
}

/// An event for people: `2026-11-30 12:00:00 tiny 1f2e3d4c5b6a ViT-tiny #1 checkpoint at 128k samples`.
fn line<Tz: TimeZone>(entry: &FeedEntry, at: &DateTime<Tz>) -> String
where
    Tz::Offset: std::fmt::Display,
{
    let mut words = vec![at.format("%Y-%m-%d %H:%M:%S").to_string()];
    words.push(if entry.sweeps.is_empty() { "-".to_owned() } else { entry.sweeps.join(",") });
    if let (Some(key), Some(model)) = (&entry.job_key, &entry.model) {
        words.push(format!("{} {model}", &key[..12]));
    }
    words.extend(entry.attempt.map(|attempt| format!("#{attempt}")));
    words.push(public_name(&entry.kind).replace('_', " "));
    words.extend(said(entry));
    one_line(&words.join(" ")).into_owned()
}

/// What there is to say beside the kind.
fn said(entry: &FeedEntry) -> Option<String> {
    let seen = entry.samples_seen.map(short);
    let at = seen.as_ref().map(|seen| format!("at {seen} samples")).unwrap_or_default();
    let values = || {
        let values = entry.values.iter().flatten();
        values.map(|(name, value)| format!("{name} {}", digits(value))).collect::<Vec<_>>().join(", ")
    };
    Some(match &*entry.kind {
        "claimed" => format!("on {}", entry.node.as_deref()?),
        "started" => {
            let device = entry.device.as_deref().unwrap_or("an unknown device");
            match entry.resumed_from_samples {
                Some(from @ 1..) => format!("on {device}, from {} samples", short(from)),
                _ => format!("on {device}"),
            }
        }
        "checkpoint" => at,
        "measured" => format!("{} {at}: {}", entry.dataset.as_deref().unwrap_or_default(), values()),
        "metrics" => format!("step {} {at}: {}", entry.step?, values()),
        "finished" => format!("{at} in {}", time(entry.train_secs? + entry.eval_secs.unwrap_or(0.0))),
        "fit" => format!(
            "{} of {} {}: {}",
            entry.law.as_deref()?,
            entry.dataset.as_deref()?,
            entry.metric.as_deref()?,
            entry.verdict.as_deref()?
        ),
        _ => {
            let kind = entry.failure_kind.as_ref().map(|kind| format!("({kind}) ")).unwrap_or_default();
            format!("{kind}{}", entry.detail.as_deref()?)
        }
    })
}

/// A number as people read it.
fn digits(value: &Value) -> String {
    match value.as_f64() {
        Some(number) => crate::report::number::significant(number, 4),
        None => value.as_str().map_or_else(|| value.to_string(), str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_three_ways() {
        let from = since("2h").expect("it is a duration");
        let ago = Utc::now() - from;
        assert!((7200..7300).contains(&ago.num_seconds()), "{ago}");
        let at = since("2026-11-30T12:00:00+01:00").expect("it is a time");
        assert_eq!(at.to_rfc3339(), "2026-11-30T11:00:00+00:00");
        assert_eq!(since("2026-11-30").expect("it is a day").with_timezone(&Local).time(), NaiveTime::MIN);
        for text in ["", "yesterday", "12:00", "2026-13-01", "9999999999999999d"] {
            assert!(since(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_pipe_that_nobody_reads_is_closed() {
        let (reader, writer) = std::io::pipe().expect("there is a pipe");
        assert!(!is_closed(&writer));
        drop(reader);
        assert!(is_closed(&writer));
    }

    #[test]
    fn names_of_the_store_and_public_ones_are_each_others() {
        for kind in Kind::value_variants() {
            let name = kind.to_possible_value().expect("none is hidden").get_name().to_owned();
            assert_eq!(public_name(&kind.stored()), name);
        }
    }
}
