//! Screens as they look, and what keys do.

use std::fs::File;
use std::io::Read;
use std::num::NonZeroU16;
use std::process::Command;

use nix::pty::{Winsize, openpty};
use nix::sys::termios::tcgetattr;
use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::termion::event::Key;

use super::draw;
use super::screen::Screen;
use super::state::{Action, App, Detail, Page, Row, Snapshot, View, Wanted};
use crate::store::{Activity, JobProgress, StateCounts, SweepSummary, Totals};

fn job(key: char, state: &str, seen: i64) -> JobProgress {
    JobProgress {
        job_key: key.to_string().repeat(64),
        state: state.to_owned(),
        reason: None,
        model: "ViT-tiny".to_owned(),
        samples_total: Some(128_000),
        data_size: Some(4096),
        seed: 0,
        gmacs: 1.0e6,
        parent_samples: 0,
        waits_for: None,
        is_trunk: false,
        samples_seen: seen,
        samples_per_sec: None,
        loss: None,
        data_wait_secs: None,
        spikes: None,
        rollbacks: None,
        gpu_joules: None,
        cpu_joules: None,
        attempts: 0,
        stderr_tail: None,
        host: None,
        backend: None,
        worker: None,
        handle: None,
        node: None,
        silent_secs: None,
    }
}

fn running(key: char, seen: i64) -> Row {
    let mut job = job(key, "running", seen);
    job.samples_per_sec = Some(1000.0);
    job.loss = Some(2.345);
    job.attempts = 1;
    job.node = Some("node7".to_owned());
    job.silent_secs = Some(1.0);
    let loss = (1..=16).map(|n| (n * seen / 16, 2.0 + 4.0 / n as f64)).collect();
    Row { job, loss }
}

/// Twelve jobs of a sweep: two run, one has failed, four wait.
fn snapshot() -> Snapshot {
    let mut failed = job('c', "failed", 32_000);
    failed.reason = Some("the loss is not a number\x1b[2J at step 500".to_owned());
    failed.attempts = 3;
    let mut waits = job('d', "pending", 0);
    waits.waits_for = Some("a".repeat(64));
    let lone = |job| Row { job, loss: Vec::new() };
    let counts = StateCounts { pending: 4, running: 2, done: 5, failed: 1, cancelled: 0 };
    let summary = |name: &str, counts: StateCounts| SweepSummary {
        sweep_id: 1,
        name: name.to_owned(),
        question: "Does it scale?\nAnd how?".to_owned(),
        counts,
        counted_secs_ago: 0.0,
    };
    Snapshot {
        sweeps: vec![summary("tiny", counts), summary("other", StateCounts { done: 3, ..StateCounts::default() })],
        view: Some(View {
            sweep: "tiny".to_owned(),
            question: "Does it scale?\nAnd how?".to_owned(),
            totals: Totals { counts, gmacs_done: 5.0e6, gmacs: 11.0e6 },
            activity: Activity {
                launcher_secs: Some(1.0),
                done_last_hour: 5,
                train_secs: 4321.0,
                gpu_hours: Some(1.234),
                joules: Some(3.6e6),
                failed: 2,
                lost: 1,
                stopped: 0,
            },
            jobs: vec![
                running('a', 64_000),
                running('b', 12_800),
                lone(failed),
                lone(waits),
                lone(job('e', "pending", 0)),
            ],
        }),
        detail: None,
        at: "12:00:00".to_owned(),
    }
}

fn app() -> App {
    let mut app = App::new(Some("tiny".to_owned()), false);
    app.update(snapshot());
    app
}

fn drawn(app: &App, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("it is memory");
    terminal.draw(|frame| draw::screen(frame, app)).expect("it is memory");
    let buffer = terminal.backend().buffer();
    let rows = buffer.content().chunks(usize::from(width));
    rows.map(|row| row.iter().map(ratatui::buffer::Cell::symbol).collect::<String>().trim_end().to_owned() + "\n")
        .collect()
}

/// Asserts that the screen shows each of these.
fn assert_shows(screen: &str, what: &[&str]) {
    for what in what {
        assert!(screen.contains(what), "`{what}` is missing:\n{screen}");
    }
}

#[test]
fn a_sweep_that_runs() {
    let shown = drawn(&app(), 120, 16);
    assert_shows(
        &shown,
        &["sweep top  tiny  Does it scale?", "12:00:00", "5 of 12 done", "2 running, 4 waiting, 1 failed"],
    );
    assert_shows(
        &shown,
        &["2k samples/s", "5 jobs done in the last hour", "1.23 GPU-hours, 1.00 kWh", "again 2 failed, 1 lost"],
    );
    assert_shows(&shown, &["aaaaaaaaaaaa", "ViT-tiny", "50 %", "2.345", "█", "64 s", "node7", "128k", "goes on from"]);
    assert!(
        shown.contains("the loss is") && !shown.contains('\x1b'),
        "what others wrote is shown, not obeyed:\n{shown}"
    );
    assert!(!shown.contains("And how?"), "of the question, one line:\n{shown}");
}

#[test]
fn a_terminal_of_80_by_24() {
    let shown = drawn(&app(), 80, 24);
    assert_shows(&shown, &["5 of 12 done", "health  1 failed", "aaaaaaaaaaaa", "loss so far", "on, or why", "q quit"]);
    assert_eq!(shown.lines().count(), 24);
}

#[test]
fn little_room() {
    let shown = drawn(&app(), 44, 9);
    assert_shows(&shown, &["5 of 12 done", "aaaaaaaaaaaa", "50 %", "q quit"]);
    assert_shows(&drawn(&app(), 20, 4), &["20x4 is too small"]);
}

#[test]
fn a_job_closer() {
    let mut app = app();
    app.press(Key::Char('\n'));
    let mut closer = snapshot();
    closer.detail = Some(Detail {
        row: running('a', 64_000),
        attempts: vec![("lost".to_owned(), "/f".to_owned()), ("running".to_owned(), "/g".to_owned())],
        log: (1..40).map(|n| format!("step {n}: all is well")).collect(),
    });
    app.update(closer);
    let shown = drawn(&app, 80, 24);
    assert_shows(
        &shown,
        &["aaaaaaaaaaaa ViT-tiny 128k samples of 4.1k, seed 0", "attempt 2  on node7", "attempts: lost, running"],
    );
    assert_shows(
        &shown,
        &["64k of 128k samples", "64 s left", "training loss", "64k samples", "step 39: all is well", "esc back"],
    );
    assert!(!shown.contains("step 1:"), "the last lines of the log:\n{shown}");
}

#[test]
fn the_choice_of_sweeps() {
    let mut app = app();
    app.press(Key::Char('s'));
    assert_shows(&drawn(&app, 80, 8), &["tiny", "other", "question", "Does it scale?", "enter show"]);
}

#[test]
fn help() {
    let mut app = app();
    app.press(Key::Char('?'));
    assert_shows(&drawn(&app, 80, 24), &["Ctrl-Z", "sweep events -f", "any key: back"]);
    app.press(Key::Char('x'));
    assert_eq!(app.page, Page::Jobs);
}

#[test]
fn a_database_that_is_away_is_said_and_what_was_known_stays() {
    let mut app = app();
    app.away = Some("can't connect to the database: connection refused".to_owned());
    let said = drawn(&app, 80, 24);
    assert!(said.contains("the database doesn't answer; trying again"), "{said}");
    assert!(said.contains("connection refused") && said.contains("aaaaaaaaaaaa"), "{said}");
    app.update(snapshot());
    assert!(!drawn(&app, 80, 24).contains("doesn't answer"));
}

#[test]
fn troubles_are_named() {
    let mut snapshot = snapshot();
    let view = snapshot.view.as_mut().expect("it has one");
    view.activity.launcher_secs = Some(600.0);
    view.jobs[0].job.silent_secs = Some(120.0);
    view.jobs[1].job.spikes = Some(2);
    assert_eq!(view.troubles().join(", "), "no launcher for 10 min, 1 silent, 1 failed, 1 with loss spikes");
    // 6 of 11 parts are left, of which 0.5 and 0.1 are trained; each of two jobs does 1/128 of a part a second.
    let left = view.secs_left().expect("two jobs run");
    assert!((left - 5.4 * 64.0).abs() < 1e-9, "{left}");
}

#[test]
fn a_job_stays_chosen_while_others_come_and_go() {
    let mut app = app();
    assert_eq!(app.place(), Some(0));
    app.press(Key::Down);
    app.press(Key::Char('j'));
    assert_eq!(app.place(), Some(2));
    let mut later = snapshot();
    later.view.as_mut().expect("it has one").jobs.remove(0);
    app.update(later.clone());
    assert_eq!(app.place(), Some(1));
    app.press(Key::Char('k'));
    later.view.as_mut().expect("it has one").jobs.remove(0);
    app.update(later);
    assert_eq!(app.place(), Some(0), "what was chosen is gone");
}

#[test]
fn another_sweep_is_asked_for() {
    let mut app = app();
    app.press(Key::Char('s'));
    app.press(Key::Down);
    assert_eq!(app.press(Key::Char('\n')), Action::Draw);
    assert_eq!(app.wanted(), Wanted { sweep: Some("other".to_owned()), detail: None });
    assert!(app.view().is_none(), "what is shown is not the other's");
    assert_eq!(app.press(Key::Ctrl('z')), Action::Suspend);
    assert_eq!(app.press(Key::Ctrl('c')), Action::Quit);
}

proptest! {
    /// No size and no keys bring it down.
    #[test]
    fn any_size_and_any_keys(width in 1_u16..200, height in 1_u16..80, keys in proptest::collection::vec(0_usize..14, 0..12)) {
        const KEYS: [Key; 14] = [
            Key::Up, Key::Down, Key::Char('\n'), Key::Esc, Key::Char('j'), Key::Char('k'),
            Key::Char('s'), Key::Char('?'), Key::Char('G'), Key::Char('g'), Key::PageDown,
            Key::PageUp, Key::Backspace, Key::Char('\t'),
        ];
        let mut app = app();
        for key in keys {
            app.press(KEYS[key]);
            let mut snapshot = snapshot();
            snapshot.detail = app.wanted().detail.map(|_| Detail { row: running('a', 64_000), attempts: Vec::new(), log: vec![String::new()] });
            app.update(snapshot);
            drawn(&app, width, height);
        }
        drawn(&App::new(None, true), width, height);
    }
}

/// Set for the process of the next test that has the screen.
const ON_A_SCREEN: &str = "SWEEP_TEST_ON_A_SCREEN";

/// The other processes of this test, each on a terminal of its own: takes the screen, then a bug strikes.
fn panics_on_its_screen(thread: &str) {
    let mut screen = Screen::take().expect("it is on a terminal");
    screen.terminal.draw(|frame| frame.render_widget("drawn-before-it", frame.area())).expect("it is a terminal");
    match thread {
        "own" => panic!("a bug of ours"),
        _ => assert!(std::thread::spawn(|| panic!("a bug of ours")).join().is_ok(), "the thread has panicked"),
    }
}

#[test]
fn a_panic_gives_the_terminal_back_and_is_read() {
    if let Ok(thread) = std::env::var(ON_A_SCREEN) {
        return panics_on_its_screen(&thread);
    }
    for thread in ["own", "another"] {
        let size = Winsize { ws_row: 24, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).expect("there is a terminal");
        let (mut ours, theirs) = (File::from(pty.master), File::from(pty.slave));
        let before = tcgetattr(&theirs).expect("it is a terminal");
        let end = || theirs.try_clone().expect("it can be shared");
        let mut command = Command::new(std::env::current_exe().expect("a test has a program"));
        command.args(["--exact", "cli::top::tests::a_panic_gives_the_terminal_back_and_is_read", "--nocapture"]);
        command.env(ON_A_SCREEN, thread).env("RUST_BACKTRACE", "0").stdin(end()).stdout(end()).stderr(end());
        let mut child = command.spawn().expect("a test runs");
        // It holds the terminal too.
        drop(command);
        // Reading ends where nobody has the terminal's other end any more, which is kept here for its modes.
        let (tell, said) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = ours.read(&mut bytes) {
                let _ = tell.send(bytes[..count].to_vec());
            }
        });
        assert!(!child.wait().expect("it ends").success(), "a panic fails the program");
        assert_eq!(tcgetattr(&theirs).expect("it is a terminal"), before, "modes are as they were");
        drop(theirs);
        reader.join().expect("it only reads");
        let bytes: Vec<u8> = said.iter().flatten().collect();
        let text = String::from_utf8_lossy(&bytes);
        let (drawn, back) = (text.find("drawn-before-it"), text.find("\x1b[?1049l"));
        assert!(drawn.is_some() && drawn < back, "the other screen is left after it was drawn on: {text:?}");
        let mut screen = vt100::Parser::new(cells(24), cells(100), 0);
        screen.process(&bytes);
        let shown = screen.screen().contents();
        assert!(shown.contains("a bug of ours") && !shown.contains("drawn-before"), "{shown}");
        assert!(!screen.screen().alternate_screen() && !screen.screen().hide_cursor(), "the cursor is shown");
    }
}

fn cells(count: u16) -> NonZeroU16 {
    NonZeroU16::new(count).expect("a terminal has cells")
}
