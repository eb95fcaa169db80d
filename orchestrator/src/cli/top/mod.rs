//! `sweep top`: a sweep that runs, on a screen that a lab keeps open. State and drawing are pure; this file has the
//! loop, `watch` reads the database, `screen` has the terminal.

mod detail;
mod draw;
mod screen;
mod state;
#[cfg(test)]
mod tests;
mod watch;

use std::io::IsTerminal;

use ratatui::termion::event::Key;
use ratatui::termion::input::TermRead;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch as channel};

use super::output::{Exit, Failure};
use super::{status, target};
use crate::store::SweepSummary;
use screen::Screen;
use state::{Action, App};

/// Options of `sweep top`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Keys: q quits, arrows or j k move, enter shows a job's loss and log, s another sweep, ? says all of them.")]
pub(super) struct Args {
    /// Name of the sweep; without one, the one that runs, or a choice.
    sweep: Option<String>,
}

pub(super) async fn run(args: Args) -> Result<Exit, Failure> {
    if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        return Err(Failure::bad_input("`sweep top` draws on a terminal, and there is none here")
            .hint("`sweep status` prints how far sweeps are, `sweep events -f` what happens, both with `--json`"));
    }
    let store = target::store().await?;
    let sweep = match args.sweep {
        Some(name) => Some(status::find(&store, &name).await?.name),
        None => at_work(&store.sweep_list(None).await?),
    };
    let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let app = App::new(sweep, colours);
    let (wanted, asked) = channel::channel(app.wanted());
    let (tell, seen) = mpsc::channel(1);
    let mut signals = Signals::new().map_err(|error| Failure::environment("can't handle signals").because(&error))?;
    let shown = tokio::select! {
        shown = show(app, seen, &wanted, &mut signals) => shown,
        () = watch::watch(store, asked, tell) => Ok(()),
    };
    shown.map(|()| Exit::Done).map_err(|error| Failure::environment("can't draw on the terminal").because(&error))
}

/// The sweep that somebody wants to see: the only one, or the only one that runs.
fn at_work(sweeps: &[SweepSummary]) -> Option<String> {
    let mut running = sweeps.iter().filter(|sweep| sweep.counts.running > 0);
    match (sweeps, running.next(), running.next()) {
        ([only], _, _) | (_, Some(only), None) => Some(only.name.clone()),
        _ => None,
    }
}

/// Signals that concern the terminal.
struct Signals {
    size: Signal,
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
    stop: Signal,
    go_on: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            size: signal(SignalKind::window_change())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
            stop: signal(SignalKind::from_raw(nix::sys::signal::Signal::SIGTSTP as i32))?,
            go_on: signal(SignalKind::from_raw(nix::sys::signal::Signal::SIGCONT as i32))?,
        })
    }
}

/// The loop: draws, and takes what comes.
async fn show(
    mut app: App,
    mut seen: mpsc::Receiver<watch::Seen>,
    wanted: &channel::Sender<state::Wanted>,
    signals: &mut Signals,
) -> std::io::Result<()> {
    let mut screen = Screen::take()?;
    let mut keys = keys();
    loop {
        screen.terminal.draw(|frame| draw::screen(frame, &app))?;
        tokio::select! {
            answer = seen.recv() => match answer {
                Some(Ok(snapshot)) => app.update(snapshot),
                Some(Err(why)) => app.away = Some(why),
                None => return Ok(()),
            },
            key = keys.recv() => match key {
                Some(Ok(key)) => match app.press(key) {
                    Action::Draw => {
                        let now = app.wanted();
                        wanted.send_if_modified(|wanted| std::mem::replace(wanted, now.clone()) != now);
                    }
                    Action::Quit => return Ok(()),
                    Action::Suspend => screen.suspend()?,
                },
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            },
            // The next drawing sees to it.
            _ = signals.size.recv() => {}
            _ = signals.stop.recv() => screen.suspend()?,
            _ = signals.go_on.recv() => screen.take_again()?,
            _ = signals.interrupt.recv() => return Ok(()),
            _ = signals.terminate.recv() => return Ok(()),
            _ = signals.hang_up.recv() => return Ok(()),
        }
    }
}

/// What comes from the keyboard, read by a thread that ends with the process.
fn keys() -> mpsc::UnboundedReceiver<std::io::Result<Key>> {
    let (tell, keys) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for key in std::io::stdin().keys() {
            let is_last = key.is_err();
            if tell.send(key).is_err() || is_last {
                return;
            }
        }
    });
    keys
}
