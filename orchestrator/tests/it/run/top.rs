//! `sweep top` on a real terminal: what it shows while a sweep runs, and that the terminal is given back as it was.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};

use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{Termios, tcgetattr};
use nix::unistd::Pid;

use super::bench::{Bench, SPEC, wait_until};
use crate::harness::transcript;

fn cells(count: u16) -> NonZeroU16 {
    NonZeroU16::new(count).expect("a terminal has cells")
}

/// A terminal of 80 by 24 with a program on it, and what it shows.
struct Terminal {
    keyboard: File,
    other_end: File,
    before: Termios,
    screen: Arc<Mutex<vt100::Parser>>,
    child: Child,
}

impl Terminal {
    /// Starts a program as a session of its own, whose controlling terminal it is.
    fn start(plain: &Command) -> Terminal {
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).expect("there is a terminal");
        let (keyboard, other_end) = (File::from(pty.master), File::from(pty.slave));
        let before = tcgetattr(&other_end).expect("it is a terminal");
        let end = || other_end.try_clone().expect("it can be shared");
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(plain.get_program()).args(plain.get_args());
        for (name, value) in plain.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.current_dir(plain.get_current_dir().expect("it is the project"));
        command.env("TERM", "xterm-256color").stdin(end()).stdout(end()).stderr(end());
        let child = command.spawn().expect("sweep starts");
        let screen = Arc::new(Mutex::new(vt100::Parser::new(cells(24), cells(80), 0)));
        let (mut output, shown) = (keyboard.try_clone().expect("it can be shared"), Arc::clone(&screen));
        // Ends with the terminal.
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                shown.lock().expect("nobody panics with it").process(&bytes[..count]);
            }
        });
        Terminal { keyboard, other_end, before, screen, child }
    }

    fn shown(&self) -> String {
        self.screen.lock().expect("nobody panics with it").screen().contents()
    }

    /// Waits until the screen shows something.
    fn wait_for(&self, what: &str) -> String {
        let shown = || Some(self.shown()).filter(|shown| shown.contains(what));
        wait_until(shown).unwrap_or_else(|| panic!("`{what}` is not on the screen:\n{}", self.shown()))
    }

    /// Waits until the program has, or has no more, the terminal's other screen.
    fn wait_for_other_screen(&self, has: bool) {
        let is_so =
            || (self.screen.lock().expect("nobody panics with it").screen().alternate_screen() == has).then_some(());
        wait_until(is_so).unwrap_or_else(|| panic!("the other screen: {has} was waited for\n{}", self.shown()));
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("it is open");
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("it is ours");
    }

    fn resize(&self, columns: u16, rows: u16) {
        let mut stty = Command::new("stty");
        stty.args(["cols", &columns.to_string(), "rows", &rows.to_string()]);
        stty.stdin(self.other_end.try_clone().expect("it can be shared"));
        assert!(stty.status().expect("stty runs").success());
        self.screen.lock().expect("nobody panics with it").screen_mut().set_size(cells(rows), cells(columns));
    }

    fn is_stopped(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
    }

    /// Waits for its end, which has to be a good one, and asserts that the terminal is as it was.
    fn assert_ends_well(mut self) {
        let status = self.child.wait().expect("it ends");
        assert_eq!(status.code(), Some(0), "{}", self.shown());
        self.wait_for_other_screen(false);
        self.assert_as_before();
    }

    fn assert_as_before(&self) {
        let now = tcgetattr(&self.other_end).expect("it is a terminal");
        assert_eq!(now, self.before, "modes are as they were");
        assert!(!self.screen.lock().expect("nobody panics with it").screen().hide_cursor(), "the cursor is shown");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_sweep_is_watched_while_it_runs() {
    let bench = Bench::new(SPEC);
    let launch = bench.launch("delay@100");
    bench.wait_for_checkpoint();
    let running = bench.wait_for("SELECT left(job_key, 12) FROM job WHERE state = 'running' ORDER BY job_id LIMIT 1");
    let mut terminal = Terminal::start(&bench.command(&["top"]));
    let shown = terminal.wait_for(&running);
    assert!(shown.contains("sweep top  tiny") && shown.contains("of 4 done"), "{shown}");
    terminal.wait_for("█");
    terminal.press("\r");
    terminal.wait_for("training loss");
    terminal.press("\x1b");
    terminal.wait_for("loss so far");
    terminal.press("s");
    terminal.wait_for("question");
    terminal.press("\r?");
    terminal.wait_for("any key: back");
    terminal.press("x");
    terminal.resize(50, 12);
    terminal.wait_for("health");
    let shown = terminal.shown();
    assert!(shown.lines().all(|line| line.chars().count() <= 50), "{shown}");
    launch.wait();
    terminal.wait_for("4 of 4 done");
    terminal.press("q");
    terminal.assert_ends_well();
}

#[test]
fn signals_give_the_terminal_back() {
    let bench = Bench::new(SPEC);
    bench.finish();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let terminal = Terminal::start(&bench.command(&["top"]));
        terminal.wait_for("4 of 4 done");
        terminal.signal(signal);
        terminal.assert_ends_well();
    }
    for stop in ["key", "signal"] {
        let mut terminal = Terminal::start(&bench.command(&["top"]));
        terminal.wait_for("4 of 4 done");
        match stop {
            "key" => terminal.press("\x1a"),
            _ => terminal.signal(Signal::SIGTSTP),
        }
        wait_until(|| terminal.is_stopped().then_some(())).expect("it stops");
        terminal.wait_for_other_screen(false);
        terminal.assert_as_before();
        terminal.signal(Signal::SIGCONT);
        terminal.wait_for_other_screen(true);
        terminal.wait_for("4 of 4 done");
        terminal.press("\x03");
        terminal.assert_ends_well();
    }
}

#[test]
fn a_database_that_is_away_is_tried_again() {
    let bench = Bench::new(SPEC);
    bench.finish();
    // By its URL, so that nobody but this test starts it.
    let url = String::from_utf8(bench.sweep(&["db", "url"]).stdout).expect("text");
    let mut command = bench.command(&["top", "tiny"]);
    command.env("DATABASE_URL", url.trim());
    let mut terminal = Terminal::start(&command);
    terminal.wait_for("4 of 4 done");
    bench.sweep(&["db", "stop"]);
    terminal.wait_for("the database doesn't answer; trying again");
    bench.sweep(&["db", "start"]);
    let is_back = || (!terminal.shown().contains("doesn't answer")).then_some(());
    wait_until(is_back).unwrap_or_else(|| panic!("{}", terminal.shown()));
    terminal.wait_for("4 of 4 done");
    terminal.press("q");
    terminal.assert_ends_well();
}

#[test]
fn without_a_terminal_other_commands_are_named() {
    let bench = Bench::new(SPEC);
    insta::assert_snapshot!(transcript(&bench.sweep(&["top"])), @r"
    exit: 2
    ----- stdout -----
    ----- stderr -----
    error: `sweep top` draws on a terminal, and there is none here

    hint: `sweep status` prints how far sweeps are, `sweep events -f` what happens, both with `--json`
    ");
}
